"""Work for all cores: a map over batches that keeps their order and holds only a few of them at a time."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait

from common import UserError

SMALL = 1_000_000  # bytes of text that one process reads sooner than several can be started


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_worker(initialise: Callable | None, *arguments) -> None:
    """What each worker process does first: leave Ctrl-C to its parent, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow_parent() -> None:
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    if initialise:
        initialise(*arguments)


@contextmanager
def workers(size: int, initialise: Callable | None = None, *arguments) -> Iterator[Callable]:
    """A function `call(function, batches)` that maps batches on all cores and yields (batch, result) in order.

    No more than a few batches are held at a time. For less than SMALL bytes of work, no processes are started.

    Raises:
        UserError: a worker process was killed.
    """
    if size < SMALL:
        if initialise:
            initialise(*arguments)
        yield lambda function, batches: ((batch, function(batch)) for batch in batches)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    cores = cpu_cores()
    pool = ProcessPoolExecutor(cores, context, start_worker, (initialise, *arguments))

    def call(function: Callable, batches: Iterable) -> Iterator:
        waiting: deque = deque()
        for batch in batches:
            waiting.append((batch, pool.submit(function, batch)))
            if len(waiting) > 2 * cores:
                yield first_result(waiting)
        while waiting:
            yield first_result(waiting)

    try:
        yield call
        pool.shutdown()
    except BrokenProcessPool:
        raise UserError("a process that reads text was killed; is there enough memory for the longest document?") from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def first_result(waiting: deque) -> tuple:
    """Wait for the oldest batch and take it off."""
    batch, future = waiting.popleft()
    return batch, future.result()
