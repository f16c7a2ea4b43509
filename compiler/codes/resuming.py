"""P52x: checkpoints and taking a run up again."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

RESUMING = (
    Code(
        "P520",
        "damaged checkpoint",
        "A file of a checkpoint is missing, was cut short, or does not have the digest that it was written with.",
        "A single bit that is not what was saved would give other weights, and nobody would notice.",
        "Nothing need be done while an earlier checkpoint is whole: `prune resume` takes that one. Else begin anew.",
    ),
    Code(
        "P521",
        "checkpoint of another format",
        "A checkpoint or a run's record was written by a version with another format.",
        "Formats are never guessed.",
        "Resume with the version that wrote it.",
    ),
    Code(
        "P522",
        "state that does not fit",
        "A checkpoint is whole, but its state is not that of this network and this graph.",
        "The code of the network, or the version of prunelang, has changed since it was written.",
        "Resume with the code and the version that the run was started with, or begin anew.",
    ),
    Code(
        "P523",
        "checkpoint of another run",
        "A checkpoint states another spec, network, seed, number type or training data than its folder's run.",
        "It was copied from elsewhere, or the network's code or the data have changed.",
        "Put back what was there when the run was started, or begin anew.",
    ),
    Code(
        "P524",
        "checkpoint of another torch",
        "A checkpoint was written with another version of torch or of prunelang.",
        "The same operations may round differently there, so the run would not be the one that was begun.",
        "Install that version, or go on with `--accept-change`: the certificate then says that the run was resumed.",
    ),
    Code(
        "P525",
        "checkpoint that cannot be written",
        "The operating system refused to write a checkpoint or a line of the history, as a full disk does.",
        "Going on without would put at risk what has been computed so far; earlier checkpoints are whole.",
        "Make room, then `prune resume DIR`.",
    ),
    Code(
        "P526",
        "spec that means something else than what ran",
        "`spec.prune` of a run directory was edited, and not only in its comments or layout.",
        "What was trained so far was trained under another problem.",
        "Undo the change; or `--accept-change`, which goes on under the new spec where the state still fits.",
    ),
    Code(
        "P527",
        "folder with a run that has not finished",
        "`prune run` would begin anew in a folder that holds checkpoints of a run that was stopped.",
        "They would be lost, and with them what was computed.",
        "Go on with `prune resume DIR`, give another `--out`, or `--restart` to begin anew.",
    ),
    Code(
        "P528",
        "folder in use",
        "Another process is writing to this run directory.",
        "Two runs would overwrite each other's files.",
        "Wait for it, or stop it. A process that was killed leaves no lock behind.",
    ),
    Code(
        "P529",
        "nothing to resume",
        "A folder holds no record of a run.",
        "The run was started without checkpoints, by an older version, or elsewhere.",
        "Name the directory that `prune run` printed, or start the run.",
    ),
)
