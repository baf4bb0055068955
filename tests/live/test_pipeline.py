"""The running loop: what is dropped, what is not, and that every end is an orderly one."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from edge_kp.errors import ModelError, SinkError, SourceError
from edge_kp.live.channel import Channel, Inbox
from edge_kp.live.frames import Frame
from edge_kp.live.pipeline import FAILED_IN_A_ROW, SINK_QUEUE, Pipeline
from edge_kp.live.statistics import Result, Statistics
from edge_kp.types import Detection

WAIT_S = 20  # a deadlock shows as a failure and not as a test run that hangs
IMAGE = np.zeros((8, 8, 3), np.uint8)


def detection():
    points = np.array([[1, 2], [3, 4]], np.float32)
    return Detection(0, np.array([1, 2, 3, 4], np.float32), 0.9, points, np.ones(2, np.float32))


class Scripted:
    """A source that gives ``count`` frames and calls ``before[i]`` before frame i, or before the end."""

    fps = 25.0
    size = (8, 8)
    name = "scripted"
    skipped = returns = 0

    def __init__(self, count, live, before=None, end=None):
        self.count, self.live, self.before, self.end = count, live, before or {}, end
        self.closed_in = None
        self._index = 0

    def read(self):
        self.before.get(self._index, lambda: None)()
        if self._index == self.count:
            if self.end is not None:
                raise self.end
            return None
        image = np.full((8, 8, 3), self._index, np.uint8)
        frame = Frame(self._index, self._index / 25, time.monotonic(), image)
        self._index += 1
        return frame

    def stop(self):
        pass

    def close(self):
        self.closed_in = threading.current_thread()


class Worker:
    """Notes the frames it sees, by the number in their pixels, and calls ``during[number]``."""

    def __init__(self, during=None):
        self.during = during or {}
        self.seen = []
        self.threads = []

    def update(self, frames):
        self.threads.append(threading.current_thread())
        found = []
        for frame in frames:
            number = int(frame.image[0, 0, 0])
            self.seen.append(number)
            self.during.get(number, lambda: None)()
            found.append(([detection()] if number % 2 else [], {"stage1": 0.002}))
        return found

    @contextlib.contextmanager
    def __call__(self):
        self.threads.append(threading.current_thread())
        yield self
        self.threads.append(threading.current_thread())


class Collector:
    """A sink that keeps what it gets and calls ``during[number]`` while it writes."""

    source = None

    def __init__(self, name="collector", during=None, close_error=None):
        self.name = name
        self.during = during or {}
        self.close_error = close_error
        self.numbers = []
        self.closed = 0

    def write(self, result):
        self.during.get(result.frame.index, lambda: None)()
        self.numbers.append(result.frame.index)

    def close(self):
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error


def wait(event):
    assert event.wait(WAIT_S), "the loop is stuck"


def fail(error):
    raise error


@pytest.fixture(autouse=True)
def no_thread_left():
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("edge_kp")] == []


def test_newest_frame_of_a_live_source_wins_and_drops_are_counted():
    started, burst = threading.Event(), threading.Event()
    source = Scripted(5, live=True, before={1: lambda: wait(started), 5: burst.set})
    worker = Worker(during={0: lambda: (started.set(), wait(burst))})
    sink = Collector()
    pipeline = Pipeline([source], worker, [sink])
    assert pipeline.run() == "end"
    assert worker.seen == [0, 4]
    assert sink.numbers == [0, 4]
    summary = pipeline.stats.summary()
    assert (summary.frames, summary.dropped, summary.with_objects) == (2, 3, 0)
    assert summary.age is not None


def test_frames_read_while_the_model_loads_are_no_drops():
    read = threading.Event()
    source = Scripted(5, live=True, before={5: read.set})

    @contextlib.contextmanager
    def slow_to_load():
        wait(read)
        yield worker

    worker = Worker()
    pipeline = Pipeline([source], slow_to_load)
    pipeline.run()
    assert worker.seen == [4]
    assert pipeline.stats.summary().dropped == 0


def test_a_file_is_never_dropped_from_even_with_a_slow_sink():
    # The sink starts only when the worker has filled the sink's queue and is about to wait for it.
    full = threading.Event()
    count = SINK_QUEUE + 30
    worker = Worker(during={SINK_QUEUE + 1: full.set})
    slow, quick = Collector("slow", {0: lambda: wait(full)}), Collector("quick")
    pipeline = Pipeline([Scripted(count, live=False)], worker, [slow, quick])
    assert pipeline.run() == "end"
    assert worker.seen == slow.numbers == quick.numbers == list(range(count))
    summary = pipeline.stats.summary()
    assert (summary.dropped, summary.sink_dropped, summary.age) == (0, {}, None)
    assert summary.with_objects == count // 2


def test_a_slow_sink_never_slows_live_inference():
    count = SINK_QUEUE + 12
    holds, done = threading.Event(), threading.Event()
    processed = [threading.Event() for _ in range(count)]
    # Each frame is read when the one before is through, so only the sink can lose any.
    before = {i: lambda i=i: wait(processed[i - 1]) for i in range(1, count + 1)}
    before[1] = lambda: (wait(processed[0]), wait(holds))
    before[count] = lambda: (wait(processed[count - 1]), done.set())
    worker = Worker({i: processed[i].set for i in range(count)})
    sink = Collector("stuck", {0: lambda: (holds.set(), wait(done))})
    pipeline = Pipeline([Scripted(count, live=True, before=before)], worker, [sink])
    pipeline.run()
    summary = pipeline.stats.summary()
    assert worker.seen == list(range(count))
    assert summary.dropped == 0
    # The sink held frame 0; of the rest the newest stayed in its queue. The last may come after ``done``.
    assert sink.numbers[0] == 0
    assert sink.numbers[-1] == count - 1
    assert len(sink.numbers) + summary.sink_dropped["stuck"] == count
    assert summary.sink_dropped["stuck"] >= count - SINK_QUEUE - 2


# ---- several sources -------------------------------------------------------------------------------------


class Batches(Worker):
    """Also notes which sources were inferred together."""

    def __init__(self, during=None):
        super().__init__(during)
        self.together = []

    def update(self, frames):
        self.together.append([(frame.source, frame.index) for frame in frames])
        return super().update(frames)


def test_frames_of_several_sources_are_inferred_together_and_none_is_lost():
    worker = Batches()
    all_results, second = Collector("all"), Collector("second")
    second.source = 1
    where = []
    write = all_results.write
    all_results.write = lambda result: (
        where.append((result.frame.source, result.frame.index)),
        write(result),
    )
    pipeline = Pipeline([Scripted(20, False), Scripted(12, False)], worker, [all_results, second])
    assert pipeline.run() == "end"
    assert sorted(where) == [(0, i) for i in range(20)] + [(1, i) for i in range(12)]
    for source in (0, 1):
        order = [index for number, index in where if number == source]
        assert order == sorted(order)
    assert second.numbers == list(range(12))
    assert max(len(batch) for batch in worker.together) == 2
    assert all(len({source for source, _ in batch}) == len(batch) for batch in worker.together)
    summary = pipeline.stats.summary()
    assert (summary.frames, summary.captured, summary.dropped) == (32, 32, 0)
    assert summary.delivered == {"all": 32, "second": 12}


def test_a_live_source_that_waits_holds_up_no_other():
    ready = threading.Event()
    slow = Scripted(1, live=True, before={0: lambda: wait(ready)})
    quick = Scripted(50, live=False, before={50: ready.set})
    worker = Worker()
    assert Pipeline([slow, quick], worker).run() == "end"
    assert sorted(worker.seen) == sorted([0, *range(50)])


def test_the_limit_counts_the_frames_of_all_sources():
    worker, sink = Worker(), Collector()
    pipeline = Pipeline([Scripted(50, False) for _ in range(3)], worker, [sink], max_frames=7)
    assert pipeline.run() == "limit"
    assert len(sink.numbers) == len(worker.seen) == 7
    assert accounted(pipeline.stats.summary())


class Lanes:
    """A worker for each inference thread, and what it saw."""

    def __init__(self, during=None):
        self.during = during or {}
        self.made = []

    @contextlib.contextmanager
    def __call__(self):
        worker = Batches(self.during)
        self.made.append(worker)
        yield worker


def test_lanes_share_the_sources_and_each_works_in_its_own_thread():
    lanes, sink = Lanes(), Collector()
    where = []
    sink.write = lambda result: where.append((result.frame.source, result.frame.index))
    pipeline = Pipeline([Scripted(n, False) for n in (9, 30, 12)], lanes, [sink], lanes=2)
    assert pipeline.run() == "end"
    assert sorted(where) == [(s, i) for s, n in enumerate((9, 30, 12)) for i in range(n)]
    for source in range(3):
        order = [index for number, index in where if number == source]
        assert order == sorted(order)
    seen = [{source for batch in worker.together for source, _ in batch} for worker in lanes.made]
    assert sorted(seen, key=len) == [{1}, {0, 2}]
    first, second = (set(worker.threads) for worker in lanes.made)
    assert (len(first), len(second)) == (1, 1)
    assert not first & second
    assert accounted(pipeline.stats.summary())


def test_a_lane_works_on_while_another_one_is_stuck():
    """Its source ends meanwhile, which ends no more than that."""
    ready = threading.Event()
    lanes = Lanes(during={40: lambda: wait(ready)})
    stuck = Scripted(41, live=False)
    free = Scripted(20, live=False)
    sink = Collector()
    sink.write = lambda result: result.frame.index == 19 and result.frame.source == 1 and ready.set()
    assert Pipeline([stuck, free], lanes, [sink], lanes=2).run() == "end"
    assert sorted(len(worker.seen) for worker in lanes.made) == [20, 41]


def test_the_limit_counts_the_frames_of_all_lanes():
    lanes, sink = Lanes(), Collector()
    pipeline = Pipeline([Scripted(90, False) for _ in range(3)], lanes, [sink], lanes=3, max_frames=31)
    assert pipeline.run() == "limit"
    assert len(sink.numbers) == sum(len(worker.seen) for worker in lanes.made) == 31
    assert accounted(pipeline.stats.summary())


def test_a_lane_that_fails_ends_the_run():
    class SecondFails(Lanes):
        @contextlib.contextmanager
        def __call__(self):
            with super().__call__() as worker:
                if len(self.made) == 2:
                    raise ModelError("no such model")
                yield worker

    sources = [Scripted(200, live=False) for _ in range(2)]
    with pytest.raises(ModelError, match="no such model"):
        Pipeline(sources, SecondFails(), [Collector()], lanes=2).run()


def test_no_more_lanes_than_sources():
    with pytest.raises(ValueError, match="expected 1 to 1"):
        Pipeline([Scripted(1, False)], Worker(), lanes=2)


def test_an_inbox_keeps_the_newest_of_each_and_wakes_who_waits():
    inbox = Inbox(2)
    assert [inbox.put(0, item, wait=False) for item in "abc"] == [0, 1, 1]
    inbox.put(1, "x", wait=True)
    assert inbox.take() == ["c", "x"]
    threads = [threading.Thread(target=inbox.put, args=(0, item, True)) for item in "de"]
    for thread in threads:
        thread.start()
    got = inbox.take() + inbox.take()
    assert sorted(got) == ["d", "e"]
    inbox.put(0, "f", wait=False)
    inbox.end(0)
    assert inbox.put(0, "g", wait=True) == 1
    assert inbox.take() == ["f"]
    inbox.put(1, "y", wait=False)
    waiting = threading.Thread(target=inbox.put, args=(1, "z", True))
    waiting.start()
    assert inbox.close() == 1
    waiting.join(WAIT_S)
    assert not waiting.is_alive()
    assert inbox.take() == []


# ---- lag -------------------------------------------------------------------------------------------------


class Paced(Scripted):
    """A camera by the clock: whoever reads late gets the newest frame, and the ones before are gone."""

    def __init__(self, count, interval):
        super().__init__(count, live=True)
        self.interval, self.start, self.handed_over = interval, None, -1

    def read(self):
        now = time.monotonic()
        self.start = self.start or now
        due = max(self.handed_over + 1, int((now - self.start) / self.interval))
        if due >= self.count:
            return None
        time.sleep(max(0.0, self.start + due * self.interval - now))
        self.handed_over = due
        image = np.full((8, 8, 3), due % 256, np.uint8)
        return Frame(due, due * self.interval, time.monotonic(), image)


@pytest.mark.parametrize("pace", [0.2, 3.0], ids=["inference-faster", "inference-slower"])
def test_what_is_inferred_is_the_newest_frame_whatever_the_pace(pace):
    """The age of a result is then the time of one inference and less than one frame.

    Counted in frames, and not in seconds, which a busy machine stretches: when inference begins, one newer
    frame may be on its way through the capture thread, more only where a thread is held up just there.
    """
    source = Paced(60, 0.01)
    behind = []

    class Measuring(Worker):
        def update(self, frames):
            behind.append(source.handed_over - frames[0].index)
            time.sleep(pace * source.interval)
            return super().update(frames)

    sink = Collector()
    pipeline = Pipeline([source], Measuring(), [sink])
    assert pipeline.run() == "end"
    assert np.median(behind) <= 1
    assert sink.numbers == sorted(sink.numbers)
    summary = pipeline.stats.summary()
    assert accounted(summary)
    if pace > 1:
        assert summary.dropped > 0


def test_the_worker_lives_in_one_thread_that_is_not_the_main_one():
    source, worker = Scripted(3, live=False), Worker()
    Pipeline([source], worker).run()
    assert len(set(worker.threads)) == 1
    assert worker.threads[0] is not threading.main_thread()
    assert source.closed_in not in (None, threading.main_thread(), worker.threads[0])


def accounted(summary):
    """Every captured frame was inferred, dropped or failed."""
    return summary.captured == summary.frames + summary.dropped + summary.failed


def test_a_frame_that_cannot_be_inferred_is_left_out_and_counted(caplog):
    during = {i: lambda: fail(RuntimeError("out of memory")) for i in (1, 4, 5)}
    sink = Collector()
    pipeline = Pipeline([Scripted(8, live=False)], Worker(during), [sink])
    assert pipeline.run() == "end"
    assert sink.numbers == [0, 2, 3, 6, 7]
    summary = pipeline.stats.summary()
    assert (summary.frames, summary.failed, summary.dropped) == (5, 3, 0)
    assert accounted(summary)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["a frame could not be inferred and is left out: out of memory"] * 2, (
        "once for each row of them"
    )


class Blind(Worker):
    """Cannot infer the frames of source 1."""

    def update(self, frames):
        return [
            ValueError("no such picture") if frame.source == 1 else found
            for frame, found in zip(frames, super().update(frames), strict=True)
        ]


def test_a_source_that_always_fails_costs_the_others_nothing_and_is_said_once(caplog):
    first, second = Collector("first"), Collector("second")
    first.source, second.source = 0, 1
    count = 3 * FAILED_IN_A_ROW
    pipeline = Pipeline([Scripted(count, False), Scripted(count, False)], Blind(), [first, second])
    # Where the other one has come to its end, all that is left fails.
    with contextlib.suppress(ValueError):
        pipeline.run()
    assert first.numbers == list(range(count))
    assert second.numbers == []
    summary = pipeline.stats.summary()
    assert summary.frames == count
    assert accounted(summary)
    assert len(caplog.messages) == 1


def test_a_worker_that_always_fails_ends_the_run_and_what_is_finished_is_written():
    source = Scripted(100, live=False)
    during = {i: lambda: fail(RuntimeError("engine broke")) for i in range(1, 100)}
    worker, sink = Worker(during), Collector()
    pipeline = Pipeline([source], worker, [sink])
    with pytest.raises(RuntimeError, match="engine broke"):
        pipeline.run()
    assert worker.seen == list(range(1 + FAILED_IN_A_ROW))
    assert sink.numbers == [0]
    assert sink.closed == 1
    assert source.closed_in is not None
    assert accounted(pipeline.stats.summary())


def test_an_error_while_the_model_loads_writes_nothing():
    @contextlib.contextmanager
    def no_model():
        raise SourceError("no such model")
        yield

    source, sink = Scripted(100, live=False), Collector()
    with pytest.raises(SourceError, match="no such model"):
        Pipeline([source], no_model, [sink]).run()
    assert sink.numbers == []
    assert source.closed_in is not None


def test_an_error_of_the_source_ends_the_run_and_what_is_finished_is_written():
    seen = threading.Event()
    source = Scripted(3, True, before={3: lambda: wait(seen)}, end=SourceError("camera stopped"))
    sink = Collector(during={2: seen.set})
    with pytest.raises(SourceError, match="camera stopped"):
        Pipeline([source], Worker(), [sink]).run()
    assert sink.numbers[-1] == 2
    assert sink.closed == 1


@pytest.mark.parametrize("live", [True, False])
def test_an_error_of_the_only_sink_ends_the_run(live):
    # Endless where nothing is dropped: the run must end by the error, and not by the source.
    source = Scripted(10**9, live)
    source.read = lambda: Frame(0, 0.0, time.monotonic(), IMAGE)
    bad = Collector("bad", {0: lambda: fail(SinkError("disk full"))})
    pipeline = Pipeline([source], Worker(), [bad])
    with pytest.raises(SinkError, match="disk full"):
        pipeline.run()
    assert bad.closed == 1
    assert accounted(pipeline.stats.summary())


def test_a_sink_that_fails_is_closed_and_the_others_go_on(caplog):
    bad = Collector("bad", {2: lambda: fail(SinkError("disk full"))})
    good = Collector("good")
    pipeline = Pipeline([Scripted(40, live=False)], Worker(), [bad, good])
    with pytest.raises(SinkError, match="disk full"):  # the exit code tells of it, at the end
        pipeline.run()
    assert (bad.numbers, good.numbers) == ([0, 1], list(range(40)))
    assert (bad.closed, good.closed) == (1, 1)
    summary = pipeline.stats.summary()
    assert summary.delivered == {"bad": 2, "good": 40}
    assert summary.sink_dropped == {"bad": 38}
    assert "disk full; going on without it" in caplog.text


def test_a_sink_that_can_neither_write_nor_be_closed_is_still_one_of_several():
    def until_it_is_gone():
        for thread in threading.enumerate():
            if thread.name == "edge_kp sink bad":
                thread.join(WAIT_S)

    bad = Collector("bad", {2: lambda: fail(SinkError("disk full"))}, close_error=SinkError("not finished"))
    good = Collector("good")
    pipeline = Pipeline([Scripted(40, live=False, before={20: until_it_is_gone})], Worker(), [bad, good])
    with pytest.raises(SinkError, match="disk full"):
        pipeline.run()
    assert good.numbers == list(range(40))


def test_an_error_of_a_sink_that_nobody_foresaw_ends_the_run():
    bad = Collector("bad", {2: lambda: fail(ZeroDivisionError("a fault of the program"))})
    with pytest.raises(ZeroDivisionError):
        Pipeline([Scripted(100, live=False)], Worker(), [bad, Collector("good")]).run()


def test_the_first_error_is_the_one_that_is_raised():
    bad = Collector("bad", {0: lambda: fail(SinkError("first"))}, close_error=SinkError("second"))
    with pytest.raises(SinkError, match="first"):
        Pipeline([Scripted(50, live=False)], Worker(), [bad]).run()


def test_an_error_at_closing_is_raised_too():
    sink = Collector(close_error=SinkError("could not be finished"))
    with pytest.raises(SinkError, match="could not be finished"):
        Pipeline([Scripted(3, live=False)], Worker(), [sink]).run()
    assert sink.numbers == [0, 1, 2]


def test_max_frames_ends_the_run_exactly():
    sink = Collector()
    pipeline = Pipeline([Scripted(100, live=False)], Worker(), [sink], max_frames=7)
    assert pipeline.run() == "limit"
    assert sink.numbers == list(range(7))
    with pytest.raises(ValueError, match="max_frames"):
        Pipeline([Scripted(1, live=False)], Worker(), max_frames=0)


def test_stop_from_another_thread_ends_a_live_run():
    source = Scripted(10**9, live=True)
    source.read = lambda: Frame(0, 0.0, time.monotonic(), IMAGE)
    sink = Collector(during={0: lambda: pipeline.stop()})
    pipeline = Pipeline([source], Worker(), [sink])
    assert pipeline.run() == "quit"
    assert sink.numbers
    assert sink.closed == 1


def test_ticks_come_from_the_calling_thread():
    summaries, ticked = [], threading.Event()

    def tick(summary):
        summaries.append((threading.current_thread(), summary))
        ticked.set()

    worker = Worker(during={2: lambda: wait(ticked)})
    Pipeline([Scripted(3, live=False)], worker, on_tick=tick, tick_s=0.01).run()
    assert {thread for thread, _ in summaries} == {threading.main_thread()}
    assert summaries[-1][1].frames <= 3


class Window:
    """A preview that quits at a frame and notes the thread."""

    def __init__(self, quit_at=None, hold=0):
        self.quit_at, self.hold = quit_at, hold
        self.numbers, self.threads, self.closed = [], set(), 0

    def show(self, result):
        self.numbers.append(int(result.frame.image[0, 0, 0]))
        self.threads.add(threading.current_thread())

    def wants_to_quit(self):
        self.threads.add(threading.current_thread())
        if self.numbers and self.numbers[-1] == 99:
            self.hold -= 1
            return self.hold < 0
        return self.quit_at is not None and bool(self.numbers)

    def close(self):
        self.closed += 1


def test_the_window_is_served_by_the_main_thread_and_can_end_the_run():
    source = Scripted(10**9, live=True)
    source.read = lambda: Frame(0, 0.0, time.monotonic(), IMAGE)
    window = Window(quit_at=0)
    assert Pipeline([source], Worker(), window=window).run() == "quit"
    assert window.threads == {threading.main_thread()}
    assert window.closed == 1


def test_a_held_window_shows_the_last_result_until_the_user_closes_it():
    window = Window(hold=5)
    assert Pipeline([Scripted(100, live=False)], Worker(), window=window, hold=True).run() == "end"
    assert window.numbers[-1] == 99
    assert window.hold == -1


def test_an_error_of_the_window_ends_the_run():
    window = Window()
    window.show = lambda result: fail(SinkError("no window"))
    source = Scripted(10**9, live=True)
    source.read = lambda: Frame(0, 0.0, time.monotonic(), IMAGE)
    with pytest.raises(SinkError, match="no window"):
        Pipeline([source], Worker(), [Collector()], window=window).run()
    assert window.closed == 1


def test_statistics_give_percentiles_per_stage_over_a_bounded_window():
    stats = Statistics(window=100)
    for i in range(1000):
        frame = Frame(i, i / 25, time.monotonic(), IMAGE)
        timings = {"total": 0.010 if i % 10 else 0.050, "locate": 0.0 if i % 4 else 0.004}
        stats.add(Result(frame, [detection()] if i < 400 else [], timings), live=False)
    stats.sink_drop("a", 0)
    stats.sink_drop("b", 2)
    stats.sink_drop("b", 3)
    summary = stats.summary()
    assert (summary.frames, summary.with_objects, summary.searches) == (1000, 400, 250)
    assert summary.stages["total"].p50 == pytest.approx(10)
    assert summary.stages["total"].p95 == pytest.approx(50)
    assert summary.stages["locate"].p50 == pytest.approx(4)
    assert summary.sink_dropped == {"b": 5}
    assert summary.age is None
    assert summary.fps > 0


def test_statistics_of_nothing_are_zeros():
    summary = Statistics().summary()
    assert (summary.frames, summary.fps, summary.mean_fps, summary.elapsed_s) == (0, 0, 0, 0)
    assert summary.stages == {}


def test_age_is_the_time_from_capture_to_result():
    stats = Statistics()
    stats.add(Result(Frame(0, 0, time.monotonic() - 3, IMAGE), [], {"total": 0.1}), live=True)
    assert 3000 <= stats.summary().age.p50 < 3000 + WAIT_S * 1000


def test_a_channel_gives_back_what_is_inside_after_its_end_and_wakes_who_waits():
    channel = Channel(2)
    assert [channel.put(i, wait=False) for i in range(4)] == [0, 0, 1, 1]
    channel.end()
    assert channel.put(9, wait=True) == 1, "it is lost"
    assert [channel.get(), channel.get(), channel.get()] == [2, 3, None]
    full = Channel(1)
    full.put(0, wait=True)
    threads = [threading.Thread(target=full.put, args=(1, True)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert full.close() == 1
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_a_signal_while_the_model_loads_ends_the_sinks_and_blames_no_file(caplog):
    loaded, before = threading.Event(), set(threading.enumerate())

    @contextlib.contextmanager
    def slow_model():
        os.kill(os.getpid(), signal.SIGINT)
        wait(loaded)
        yield Worker()

    sinks = [Collector("a.mp4"), Collector("a.jsonl")]
    assert Pipeline([Scripted(100, live=False)], slow_model, sinks).run() == "signal"
    assert [(sink.numbers, sink.closed) for sink in sinks] == [([], 1)] * 2
    assert not caplog.messages
    loaded.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)


def test_a_sink_that_hangs_after_a_signal_is_named_only_if_it_was_given_something(caplog):
    go_on, before = threading.Event(), set(threading.enumerate())

    def hang():
        os.kill(os.getpid(), signal.SIGINT)
        wait(go_on)

    class Hanging(Collector):
        def close(self):
            wait(go_on)

    busy, idle = Collector("busy.mp4", {0: hang}), Hanging("idle.mp4")
    idle.source = 1
    sources = [Scripted(100, live=False), Scripted(0, live=False)]
    assert Pipeline(sources, Worker(), [busy, idle]).run() == "signal"
    assert caplog.messages == ["edge_kp sink busy.mp4 did not finish in time: its file may be incomplete"]
    go_on.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)


SIGNALLED = """
import contextlib, sys, time
import numpy as np
from edge_kp.live.pipeline import Pipeline
from edge_kp.live.lines import JsonlSink
from edge_kp.live.sinks import VideoSink
from edge_kp.live.frames import Frame
from edge_kp.live.statistics import Result, Statistics
from edge_kp.types import Detection

class Camera:
    live, fps, size, name, skipped, returns = LIVE, 100.0, (320, 240), "camera", 0, 0
    index = 0
    def read(self):
        image = np.random.default_rng(self.index).integers(0, 255, (240, 320, 3), np.uint8)
        frame = Frame(self.index, self.index / 100, time.monotonic(), image)
        self.index += 1
        return frame
    def stop(self):
        pass
    def close(self):
        pass

class Worker:
    count = 0
    def update(self, frames):
        self.count += 1
        if self.count == 20:
            print("running", flush=True)
        points = np.random.default_rng(1).random((68, 2), np.float32)
        box = np.array([0, 0, 1, 1], np.float32)
        return [([Detection(0, box, 1.0, points, np.ones(68, np.float32))], {}) for _ in frames]

sinks = [VideoSink(sys.argv[1], lambda r: r.frame.image, fps=100.0, live=LIVE), JsonlSink(sys.argv[2])]
print(Pipeline([Camera()], lambda: contextlib.nullcontext(Worker()), sinks).run())
"""


@pytest.mark.parametrize(
    ("number", "live"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["SIGINT-live", "SIGTERM-file"]
)
def test_a_signal_leaves_a_playable_video_and_whole_lines(tmp_path, number, live):
    video, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    code = SIGNALLED.replace("LIVE", str(live))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(video), str(lines)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "running\n", process.stderr.read()
        process.send_signal(number)
        process.send_signal(number)  # an impatient second one must not break the files
        out, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "signal\n", "")
    text = lines.read_text()
    assert text.endswith("\n")
    records = [json.loads(line) for line in text.splitlines()]
    assert len(records) >= 10
    clip = cv2.VideoCapture(str(video))
    count = 0
    while clip.read()[0]:
        count += 1
    assert count >= 1
    if not live:
        assert count == len(records)
