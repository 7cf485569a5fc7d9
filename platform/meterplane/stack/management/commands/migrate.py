"""`manage.py migrate` as Django's, in half the time on an empty database.

Django renders a model anew, with all that is related to it, after each constraint and each index
that a migration adds or removes. On the way forward that is half of all the work, and nothing is
made of it: statements come from the operation, and only an option of one model has changed. Here
that option is set on the model as it stands. Backwards, Django does as it always does.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

from django.core.management.commands import migrate
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ProjectState


class Executor(MigrationExecutor):
    """Goes forward with options set in place."""

    def _migrate_all_forwards(self, *arguments: Any, **options: Any) -> Any:
        with mock.patch.multiple(
            ProjectState,
            _append_option=_in_place(ProjectState._append_option),  # type: ignore[attr-defined]
            _remove_option=_in_place(ProjectState._remove_option),  # type: ignore[attr-defined]
        ):
            return super()._migrate_all_forwards(*arguments, **options)  # type: ignore[misc]


class Command(migrate.Command):
    """Django's, with that executor."""

    def handle(self, *arguments: Any, **options: Any) -> None:
        """Run it."""
        with mock.patch.object(migrate, "MigrationExecutor", Executor):
            super().handle(*arguments, **options)


def _in_place(change: Callable[..., None]) -> Callable[..., None]:
    """The same change of a state; of what is rendered of it, only the model's own option."""

    def changed(state: Any, app_label: str, model: str, option: str, given: object) -> None:
        rendered = vars(state).pop("apps", None)
        change(state, app_label, model, option, given)
        if rendered is None:
            return
        state.apps = rendered
        meta = rendered.get_model(app_label, model)._meta
        named = meta._format_names(state.models[app_label, model].options[option])
        setattr(meta, option, named)
        vars(meta).pop("total_unique_constraints", None)

    return changed
