"""A trial: its description, how its episodes run on one or more ranks, and how failures are recorded."""

from mipoison._moved import forward

__getattr__ = forward(
    __name__,
    "study.trial.run",
    {
        "complete": "record_trial",
        "execute": "run_and_record",
        "relate": "relate_to_anchors",
        "was_lost": "is_machine_failure",
    },
)
