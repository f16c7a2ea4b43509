"""P550–P559: a program inside somebody else's training loop, and problems that Python builds."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

BINDING = (
    Code(
        "P550",
        "program that another loop cannot drive",
        "`bind` was asked for a program with a step that is neither of a batch nor of an epoch.",
        "A loop of one's own hands over one batch after another. A search trains again and again, block coordinate "
        "descent moves layers over all data at once.",
        "Call `run` instead, or take a solver whose steps are batches and epochs.",
    ),
    Code(
        "P551",
        "network that is not the spec's",
        "A tensor of the network handed over is missing, has another shape or type, is not in the spec, or is not "
        "trained.",
        "Budgets were proved for the tensors that the spec was checked with; on others they would say nothing.",
        "Build the network that the spec names, or write `model net = given()` and hand over the network: "
        "`prunelang.compile(…, model=net, sample=x)`.",
    ),
    Code(
        "P552",
        "optimizer that does not fit",
        "The optimizer handed over does not hold a tensor that the spec trains, or cannot do what the program asks.",
        "A tensor that nothing moves would keep its values while the program takes it to be trained.",
        "Give the optimizer all parameters of the network; follow the message for its kind.",
    ),
    Code(
        "P553",
        "steps that do not make up an epoch",
        "How many optimizer steps an epoch has is not known, or an epoch had more or fewer than it was said to have.",
        "Schedules are functions of the share of a stage that is over, so its length has to be known.",
        "Give `loader`, or `steps_per_epoch` where gradients are accumulated; call `epoch_end()` after every epoch.",
    ),
    Code(
        "P554",
        "nothing to measure on",
        "The program measures the network or reads samples, and no data were handed over for that.",
        "Values of `accuracy` and its like need samples, and so do statistics of normalisation.",
        "Give `evaluate` and `loader` to `bind`, or name a registered data set in the spec.",
    ),
    Code(
        "P555",
        "program that is not where it should be",
        "`finish` was called before the program was over, or a step after it.",
        "Weights satisfy the constraints when the last stage has ended, and training after that would break them.",
        "Loop until `stepper.done`; then `finish`. To stop before that: `finish(…, early=True)`.",
    ),
    Code(
        "P556",
        "state of another program",
        "The state that was to be loaded is of a program with other steps, or of another version.",
        "The same numbers mean something else there.",
        "Bind the program that the state is of: same spec, same parameters, same steps per epoch.",
    ),
    Code(
        "P557",
        "network that has not been handed over",
        "The spec says `given()`, and no network, or no data, came with it.",
        "`given` stands for what the program around the spec hands over.",
        "Compile with `prunelang.compile(…, model=net, sample=x)` and use `bind`; to run it from the command line "
        "register the network, and name it.",
    ),
)
