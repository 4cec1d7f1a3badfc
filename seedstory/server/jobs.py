"""The threads that make stories, each with a batch of its own. Stories join and leave between pages."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from seedstory.error_reporting import one_line
from seedstory.errors import RequestError, SeedStoryError
from seedstory.memory.machine import release_free_memory
from seedstory.page import settings_of
from seedstory.rendering import drawing_steps
from seedstory.server.batches import Batch, DrawPreview, OpenBatch, WorkerLostError, local_batches
from seedstory.server.job import BusyError, Job, ServerFullError
from seedstory.server.library import JobRecord, Library
from seedstory.server.views import page_view, story_view
from seedstory.story import Page, StoryFolder

if TYPE_CHECKING:
    from seedstory.pipeline import StoryPipeline

logger = logging.getLogger(__name__)

_BROKEN = "the page could not be made: see the server's log"


class _ClosingError(Exception):
    """The server stops: the page under way is given up."""


class JobRunner:
    """Makes the stories of a library that are waiting, as many side by side as are allowed.

    Args:
        pipeline: Checks what is asked for and, without `batches`, makes it, in this object's thread alone.
        library: The stories.
        max_stories: Stories under way at a time.
        page_timeout: Seconds that a change waits for the page under way.
        batches: What makes the stories, each in a thread; by default one batch of this process.
    """

    def __init__(
        self,
        pipeline: StoryPipeline,
        library: Library,
        *,
        max_stories: int = 8,
        page_timeout: float = 300.0,
        batches: Sequence[OpenBatch] | None = None,
    ) -> None:
        self.pipeline, self.library = pipeline, library
        self._batches = local_batches(pipeline) if batches is None else batches
        self.max_stories, self.page_timeout = max_stories, page_timeout
        self.counts: Counter[str] = Counter()
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition(threading.RLock())
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._working: list[dict[int, Job]] = []  # the stories of each batch that is ready
        self._owned = ExitStack()

    # ------------------------------------------------------------------------------------------------ for the clients

    @property
    def is_closing(self) -> bool:
        return self._closing

    def start(self) -> None:
        """Begins, with the stories that an earlier server left unfinished.

        Raises:
            StoryFolderError: Another server has the library.
        """
        self._owned.enter_context(self.library.owned())
        for story_id in self.library.ids():
            try:
                job = self.job(story_id)
            except SeedStoryError as error:
                logger.warning("%s is left alone: %s", story_id, one_line(str(error)))
                continue
            if job.record.temporary:
                self.remove(story_id)
        for number, open_batch in enumerate(self._batches):
            self._threads.append(
                threading.Thread(target=self._work, args=(open_batch,), name=f"seedstory-jobs-{number}")
            )
        for thread in list(self._threads):
            thread.start()

    def close(self) -> None:
        """Stops, and waits for the end of it."""
        self.stop()
        for thread in self._threads:
            thread.join()
        self._owned.close()

    def stop(self) -> None:
        """Begins to stop. The page under way is given up; another server goes on with the stories."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for job in list(self._jobs.values()):
            job.log.wake_all()

    def job(self, story_id: str) -> Job:
        """The making of a story.

        Raises:
            NotFoundError: There is no such story.
            StoryFolderError: It is broken.
        """
        self.library.folder(story_id)
        with self._changed:
            if story_id not in self._jobs:
                self._jobs[story_id] = Job(story_id, self.library.read_job(story_id))
            return self._jobs[story_id]

    def states(self) -> Counter[str]:
        """How many stories are in each state, of those that were asked about since the start."""
        return Counter(job.state for job in list(self._jobs.values()))

    def check_capacity(self) -> None:
        """Checks that one more story may be under way.

        Raises:
            ServerFullError: It may not.
        """
        with self._changed:
            count = sum(job.is_open for job in self._jobs.values())
        if count >= self.max_stories:
            self.counts["refused"] += 1
            raise ServerFullError(
                f"{count} stories are under way, and the server makes {self.max_stories} at a time: try again later"
            )

    def create(self, *, temporary: bool = False, **arguments: Any) -> str:
        """Stores a new story, which is then waiting; the arguments are those of `StoryPipeline.stream`.

        Raises:
            ServerFullError: Too many are under way.
            SeedStoryError: As `StoryPipeline.stream`.
        """
        with self._changed:
            self.check_capacity()
            story_id = self.library.create(self.pipeline, temporary=temporary, **arguments)
            self.job(story_id)
            self.counts["created"] += 1
            self._changed.notify_all()
        return story_id

    def cancel(self, story_id: str) -> None:
        """Has a story stop; the page under way is still made."""
        job = self.job(story_id)
        with self._changed:
            if job.is_wanted:
                self._set(job, JobRecord("stopped", temporary=job.record.temporary))
            self._changed.notify_all()

    def resume(self, story_id: str) -> None:
        """Has a story go on that was stopped, or has failed.

        Raises:
            ServerFullError: Too many are under way.
            SeedStoryError: It cannot go on.
        """
        job = self.job(story_id)
        folder = self.library.open(story_id)
        with self._changed:
            if folder.is_complete:
                self._set(job, JobRecord("done", temporary=job.record.temporary))
                return
            if not job.is_open:
                self.check_capacity()
            job.failures = 0
            if not job.is_wanted:
                self._set(job, JobRecord("waiting", temporary=job.record.temporary))
            self._changed.notify_all()

    def change(self, story_id: str, change: Callable[[StoryFolder], Any], *, later: bool = False) -> Any:
        """Changes a story that is not under way meanwhile, and then has the pages made that the change asks for.

        Args:
            story_id: The story. If it is under way, the page under way is made first.
            change: Changes it, given its folder.
            later: Only note the change: a story that is not under way stays so.

        Returns:
            What `change` returned.

        Raises:
            ServerFullError: Too many stories are under way; nothing is changed.
            BusyError: Somebody else is changing the story.
            SeedStoryError: As `change`.
        """
        job = self.job(story_id)
        if not later and not job.is_open:
            self.check_capacity()
        with self._held(job):
            folder = self.library.open(story_id)
            result = change(folder)
            folder = self.library.open(story_id)
            with self._changed:
                job.failures = 0
                record = JobRecord("done" if folder.is_complete else "waiting", temporary=job.record.temporary)
                if later and not folder.is_complete and not job.is_wanted:
                    record = job.record if job.record.state == "failed" else replace(record, state="stopped")
                try:
                    self._set(job, record, announce=False)
                except OSError:  # the disk is full, but the change is made
                    job.record = record if folder.is_complete else replace(record, state="stopped")
                    raise
            job.log.add("story", story_view(story_id, folder, job.record.state, job.record.error))
        return result

    def remove(self, story_id: str) -> None:
        """Removes a story.

        Raises:
            BusyError: Somebody else is changing it.
        """
        job = self.job(story_id)
        with self._held(job):
            self.library.delete(story_id)
            with self._changed:
                job.record = JobRecord("stopped")
                self._jobs.pop(story_id, None)
            job.log.add("removed", {"id": story_id})

    @contextmanager
    def _held(self, job: Job) -> Iterator[None]:
        """Keeps a story out of the batch."""
        with self._changed:
            free = self._changed.wait_for(lambda: self._closing or not job.is_held, self.page_timeout)
            if self._closing or not free:
                raise BusyError("the story is being changed, or the server stops: try again")
            job.is_held = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._closing or job.number is None, self.page_timeout):
                job.is_held = False
                raise BusyError("the page under way takes too long: try again")
        try:
            if job.number is not None:
                raise BusyError("the server stops: try again")
            yield
        finally:
            with self._changed:
                job.is_held = False
                self._changed.notify_all()

    def _set(self, job: Job, record: JobRecord, *, announce: bool = True) -> None:
        with self._changed:
            if record != job.record:
                self.library.write_job(job.story_id, record)
                job.record = record
        if announce:
            job.log.add("state", {"state": job.state, "error": job.record.error})

    # --------------------------------------------------------------------------------------------- for its own threads

    def _work(self, open_batch: OpenBatch) -> None:
        members: dict[int, Job] = {}
        batch: Batch | None = None
        try:
            while not self._closing:
                if batch is None:
                    batch = open_batch(partial(self._drawing, members), lambda: self._closing)
                    with self._changed:
                        self._working.append(members)
                        self._changed.notify_all()
                try:
                    self._let_go(batch, members)
                    self._let_join(batch, members)
                    with self._changed:
                        if not members:
                            self._changed.wait_for(lambda: self._closing or bool(self._joining(members)))
                            continue
                    pages = batch.step(previews=any(job.log.wants_preview("") for job in members.values()))
                except _ClosingError:
                    break
                except Exception as error:  # noqa: BLE001 - one story's failure must not end the others
                    if self._closing and isinstance(error, WorkerLostError):
                        break
                    self._step_failed(members, error)
                    with suppress(Exception):
                        batch.close()
                    self._retire(members)
                    batch = None
                    continue
                self._announce(batch, members, pages)
        except BaseException as error:
            if not (self._closing and isinstance(error, WorkerLostError)):
                logger.exception("a thread that makes stories has ended")
                raise
        finally:
            if batch is not None:
                with suppress(Exception):
                    batch.close()
            with self._changed:
                for job in members.values():
                    job.number = None
                self._retire(members)
                self._threads = [one for one in self._threads if one is not threading.current_thread() or self._closing]
                self._closing = self._closing or not self._threads
                self._changed.notify_all()

    def _retire(self, members: dict[int, Job]) -> None:
        """A batch has ended: others take its stories."""
        with self._changed:
            members.clear()
            self._working = [one for one in self._working if one is not members]
            self._changed.notify_all()

    def _joining(self, members: dict[int, Job]) -> list[Job]:
        """Which stories may join a batch. One whose step broke is made alone, so that it is known which one breaks."""
        waiting = [job for job in self._jobs.values() if job.is_wanted and job.number is None and not job.is_held]
        if any(job.failures for job in members.values()):
            return []
        suspects = [job for job in waiting if job.failures]
        if suspects:
            return [] if members else suspects[:1]
        running = sum(map(len, self._working))
        fair = -(-(running + len(waiting)) // max(1, len(self._working)))
        return waiting[: max(0, min(self.max_stories - running, fair - len(members)))]

    def _let_join(self, batch: Batch, members: dict[int, Job]) -> None:
        with self._changed:
            joining = self._joining(members)
            for job in joining:
                job.number = -1  # it may not be held from now on
        for place, job in enumerate(joining):
            try:
                job.settings = None
                opened = self.library.store_opening(job.story_id, batch.encode)
                if opened is not None:
                    job.log.add("page", page_view(job.story_id, opened, 0))
                number = batch.resume(self.library.folder(job.story_id), callback_on_text=partial(self._text, job))
            except WorkerLostError as error:
                with self._changed:
                    for other in joining[place:]:
                        other.number = None
                if not self._closing:
                    self._step_failed({-1: job}, error)
                raise
            except Exception as error:  # noqa: BLE001
                self._fail(job, error)
                continue
            with self._changed:
                job.number, members[number] = number, job
            self._set(job, job.record)

    def _let_go(self, batch: Batch, members: dict[int, Job]) -> None:
        with self._changed:
            leaving = [(number, job) for number, job in members.items() if job.is_held or not job.is_wanted]
            for number, job in leaving:
                with suppress(RequestError):  # it has ended by itself
                    batch.remove(number)
                del members[number]
                job.number = None
            self._changed.notify_all()

    def _text(self, job: Job, index: int, text: str) -> None:
        if self._closing:
            raise _ClosingError
        self.counts["tokens"] += 1
        job.log.add("text", {"number": index + 1, "text": text}, topic=f"text {index}")

    def _drawing(
        self, members: dict[int, Job], pages: Sequence[tuple[int, Page]], step: int, draw_preview: DrawPreview
    ) -> None:
        if self._closing:
            raise _ClosingError
        for row, (number, page) in enumerate(pages):
            job = members[number]
            if job.settings is None:
                job.settings = self.library.open(job.story_id).settings
            steps = drawing_steps(self.pipeline.detokenizer, settings_of(page, job.settings))
            said: dict[str, Any] = {"number": page.number, "steps": steps}
            if step == 0:
                job.log.add("written", said | {"text": page.caption})
                continue
            topic, preview = f"step {page.index}", None
            if step < said["steps"] and job.log.wants_preview(topic):  # after the last one the image itself comes
                preview = draw_preview(row)
            done = min(step, said["steps"])  # PNDM has its network predict once more than there are steps
            job.log.add("step", said | {"step": done}, topic=topic, preview=preview)

    def _announce(self, batch: Batch, members: dict[int, Job], pages: list[tuple[int, Page]]) -> None:
        """Says which pages are made; stories that are complete end."""
        for number, page in pages:
            job, self.counts["pages"] = members[number], self.counts["pages"] + 1
            job.failures = 0
            with suppress(SeedStoryError):  # the folder is gone, which is found below
                job.log.add("page", page_view(job.story_id, self.library.open(job.story_id), page.index))
        for number in {number for number, _ in pages} or set(members):
            job, lost = members[number], None
            try:
                complete = self.library.open(job.story_id).is_complete
            except SeedStoryError as error:
                complete, lost = False, error
            if not complete and lost is None and pages:
                continue
            with suppress(RequestError):
                batch.remove(number)
            del members[number]
            if complete:
                self._end(job, JobRecord("done", temporary=job.record.temporary))
                self.counts["done"] += 1
                release_free_memory()
            else:
                self._fail(job, lost or RuntimeError("no page came"))

    def _step_failed(self, members: dict[int, Job], error: Exception) -> None:
        """Has the stories of a batch tried once more, each alone; one that is known to break it has failed."""
        logger.error("a step broke off", exc_info=error)
        alone = len(members) == 1 and not isinstance(error, WorkerLostError)
        for job in members.values():
            job.failures += 1
            if alone or job.failures > 1:
                self._fail(job, error)
            else:
                with self._changed:
                    job.number = None
                    self._changed.notify_all()

    def _fail(self, job: Job, error: Exception) -> None:
        if not isinstance(error, SeedStoryError | OSError):
            logger.error("story %s has failed", job.story_id, exc_info=error)
        known = isinstance(error, SeedStoryError)
        line = one_line(str(error)) if known else error.strerror if isinstance(error, OSError) else None
        line = (line or _BROKEN).replace(str(self.library.path / job.story_id), "the story")
        self.counts["failed"] += 1
        job.failures = 0
        self._end(job, JobRecord("failed", line, temporary=job.record.temporary))

    def _end(self, job: Job, record: JobRecord) -> None:
        """Ends the making of a story that has left the batch."""
        with self._changed:
            job.number = None
            try:
                self._set(job, record if job.is_wanted or record.state == "done" else job.record)
            except (OSError, SeedStoryError):  # the disk is full, or the folder is gone
                job.record = record
                job.log.add("state", {"state": job.state, "error": record.error})
            self._changed.notify_all()
