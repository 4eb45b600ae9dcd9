"""What an engine tells: everything once, in its order."""

from scalesearch.engine.tidings import Tidings
from scalesearch.engine.work import Failed, Finished, Noticed
from scalesearch.trials import TrialKey

KEY = TrialKey(proxy="a", seed=0, rung=2)


def test_what_waits_is_told_once_and_a_notice_never_again():
    tidings, failed = Tidings(), Failed(KEY, "its process died", final=False)
    tidings.add(Noticed("no space left"), failed)
    tidings.add(Noticed("no space left"), failed)
    assert tidings.taken() == [Noticed("no space left"), failed, failed]
    tidings.add(Noticed("no space left"), Finished(KEY))
    assert tidings.taken() == [Finished(KEY)]
    assert tidings.taken() == []
