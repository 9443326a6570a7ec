"""The pieces of the training loop, for anybody's own loop, and the engine, for parts that learn. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rarkit.lazy import lazy_names

if TYPE_CHECKING:
    from rarkit.engine.learning import Learning as Learning
    from rarkit.engine.learning_rates import learning_rate as learning_rate
    from rarkit.engine.optimizer import make_optimizer as make_optimizer
    from rarkit.engine.settings import TrainSettings as TrainSettings
    from rarkit.engine.task import Losses as Losses
    from rarkit.engine.task import Task as Task
    from rarkit.engine.trained import Trained as Trained
    from rarkit.models.target_aware import TargetAwarePositions as TargetAwarePositions
    from rarkit.permutation_schedules.draw import draw_orders as draw_orders
    from rarkit.training.batches import dropped_labels as dropped_labels
    from rarkit.training.batches import rows_of_step as rows_of_step
    from rarkit.training.likelihood import nats_per_image as nats_per_image

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "rarkit.models.target_aware": ["TargetAwarePositions"],
        "rarkit.permutation_schedules.draw": ["draw_orders"],
        "rarkit.training.batches": ["dropped_labels", "rows_of_step"],
        "rarkit.training.likelihood": ["nats_per_image"],
        "rarkit.engine.learning": ["Learning"],
        "rarkit.engine.learning_rates": ["learning_rate"],
        "rarkit.engine.optimizer": ["make_optimizer"],
        "rarkit.engine.settings": ["TrainSettings"],
        "rarkit.engine.task": ["Losses", "Task"],
        "rarkit.engine.trained": ["Trained"],
    },
)
