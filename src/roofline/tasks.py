"""Tasks that are run here or by any executor: a pool of threads or processes, or a cluster. What an executor loses is run here."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from roofline.errors import InvalidValueError, RooflineError, quoted

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def check_executor(executor: Executor | None) -> Executor | None:
    """Return an executor, or raise if it is none."""
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise InvalidValueError(
            f"executor is {quoted(executor)}; it must have submit(function, task), as those of concurrent.futures and clients of dask do."
        )
    return executor


def run_tasks(function: Callable[[Task], Answer], tasks: Sequence[Task], executor: Executor | None) -> list[Answer]:
    """Return the answer to each task, in order.

    A task of which the executor says nothing but that it failed, because a worker died, it was shut down or cannot send the task, is run
    here, with a warning that counts them. So nothing is lost, and an error of the function itself is raised where it can be seen.
    """
    if executor is None:
        return [function(task) for task in tasks]
    futures: list[Any] = []
    answers: dict[int, Answer] = {}
    why = ""
    try:
        for task in tasks:
            try:
                futures.append(executor.submit(function, task))
            except Exception as error:
                why = f"{type(error).__name__}: {quoted(str(error))}"
                break
        for at, future in enumerate(futures):
            try:
                answers[at] = future.result()
            except RooflineError:
                raise
            except Exception as error:
                why = why or f"{type(error).__name__}: {quoted(str(error))}"
    finally:
        for future in futures:
            future.cancel()
    if len(answers) < len(tasks):
        lost = len(tasks) - len(answers)
        warnings.warn(f"{lost} of {len(tasks)} tasks are run here, because the executor lost them ({why}).", stacklevel=3)
    return [answers[at] if at in answers else function(task) for at, task in enumerate(tasks)]
