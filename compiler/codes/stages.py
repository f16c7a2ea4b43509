"""P4xx: solvers, optimizers and stages."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

STAGES = (
    Code(
        "P401",
        "unknown solver",
        "`solve` names a solver that is not here.",
        "Solvers are a fixed list; the note shows it.",
        "Take one of the list, or `solve auto`.",
    ),
    Code(
        "P402",
        "unknown optimizer",
        "`with` names an optimizer that is not here.",
        "Optimizers are a fixed list; the note shows it.",
        "Take one of the list.",
    ),
    Code(
        "P403",
        "unknown option",
        "A solver or optimizer gets an option that it does not have, or one twice.",
        "An option that is ignored would change nothing, silently.",
        "Take one of the names suggested; if the option is another solver's, the hint says whose.",
    ),
    Code(
        "P404",
        "option out of range",
        "An option, or a schedule at the start or end of its clocks, leaves its range.",
        "The algorithm is not defined there.",
        "Choose a value inside the range.",
    ),
    Code(
        "P405",
        "option of another kind",
        "An option gets a value of another kind: a fraction for a whole number, a word that is no member.",
        "No value is converted silently.",
        "Give a value of the kind named.",
    ),
    Code(
        "P406",
        "clock that does not run here",
        "An option or a duration follows a clock that it may not follow, or that does not run in its stage.",
        "`k` counts outer iterations and exists in solvers that have them; `lr` is for options of solvers.",
        "Use `epoch`, `step` or `p`.",
    ),
    Code(
        "P407",
        "option missing",
        "An option without a default is left out.",
        "There is no value that would be right for every spec.",
        "Give it.",
    ),
    Code(
        "P408",
        "`pretrain` after `solve`",
        "A stage of plain training follows the solver.",
        "It would train the constraints away.",
        "Use `finetune`, which keeps them.",
    ),
    Code(
        "P409",
        "nothing to train on",
        "A stage has no data term to descend on.",
        "Training needs a differentiable function of the data.",
        "Add a loss to the objective, or name one: `minimizing cross_entropy(net)`.",
    ),
    Code(
        "P410",
        "duration that is none",
        "`for` takes a whole number of epochs or steps.",
        "A plain number could be either.",
        "Write the unit: `for 20 epochs`.",
    ),
    Code(
        "P411",
        "unknown stopping test",
        "`until` names a test that is not here.",
        "Tests are a fixed list; the note shows it.",
        "Take one of the list.",
    ),
    Code(
        "P412",
        "Nesterov without momentum",
        "`nesterov = true` with momentum 0.",
        "Nesterov's step is a form of the momentum step.",
        "Give `momentum = 0.9`, or drop `nesterov`.",
    ),
    Code(
        "P413",
        "no `solve`",
        "The spec has no stage that compresses.",
        "It can be checked and explained; a run would only train.",
        "Add `solve auto`.",
    ),
    Code(
        "P414",
        "solver that does not take the problem",
        "The solver of a stage cannot handle a constraint or a penalty.",
        "Each solver states the pairs of function and set that it takes; nothing is dropped silently.",
        "Take one of the solvers in the hint, or rewrite the line.",
    ),
    Code(
        "P415",
        "no joint projection",
        "Constraints cross in a way that nothing here projects onto exactly.",
        "Every solver ends in weights that satisfy all of them, by one projection.",
        "Drop or rewrite one of the lines named, so that one contains the other or they do not meet.",
    ),
    Code(
        "P416",
        "stopping test that is not carried out",
        "`until` is checked, and no solver of this version acts on it.",
        "A stage that silently ran to its full length would not be what was asked.",
        "Give the length with `for` alone.",
    ),
    Code(
        "P417",
        "moving bound that is not carried out",
        "The bound follows the clocks, and no solver of this version follows it.",
        "Training under the final bound from the start is another method.",
        "Give the final bound.",
    ),
    Code(
        "P430",
        "step size that cannot be stable",
        "lr · μ is above the limit at which the quadratic pull alone diverges.",
        "Gradient descent on (μ/2)‖W − θ‖² is stable only below 2(1 + β), with Nesterov's step 2(1 + β)/(1 + 2β).",
        "Lower the learning rate or the penalty coefficient at the k named.",
    ),
)
