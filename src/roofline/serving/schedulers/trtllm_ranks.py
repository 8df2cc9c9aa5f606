"""`BalancedRanks`: TensorRT-LLM's data-parallel ranks, whose prompts wait for each other."""

from collections.abc import Sequence

from roofline.serving.schedulers.ranks import NOTHING, ChooseRank, Ranks
from roofline.serving.schedulers.trtllm import TrtllmScheduler
from roofline.serving.steps.load import Load


class BalancedRanks(Ranks):
    """The ranks of one engine, where prompts run when all ranks have some, or when they have waited for long.

    A step in which one rank has a prompt takes as long on all others, so that it is worth to wait. Where a rank has no prompt that may run,
    or one has no place for another sequence, all prompts of a step are left for a later one; every `rank_wait_steps` of such steps they run
    all the same, and where a rank has nothing to answer. Where all ranks have prompts, these wait `rank_gather_steps` for more.

    Parameters
    ----------
    ranks : sequence of TrtllmScheduler
        A scheduler for each rank [-].
    choose : callable, optional
        What chooses the rank of a request, see `Ranks` [-].

    References
    ----------
    github.com/NVIDIA/TensorRT-LLM, tensorrt_llm/_torch/pyexecutor/scheduler/scheduler.py (``_balance_adp_context_requests``); docs/source/blogs,
    "ADP Balance Strategy".
    """

    ranks: Sequence[TrtllmScheduler]

    def __init__(self, ranks: Sequence[TrtllmScheduler], choose: ChooseRank | None = None) -> None:
        super().__init__(ranks, choose)
        self._waited = 0  # steps without prompts of all ranks since prompts were last let go
        self._gathered = 0  # steps for which prompts of all ranks have waited for more

    def schedule(self, now_s: float) -> tuple[Load, ...] | None:
        """Decide what each rank's part of the step that begins now holds; None if there is nothing to do on any."""
        ahead = [rank.ahead() for rank in self.ranks]
        deciding = [rank for rank, load in zip(self.ranks, ahead, strict=True) if load is None]
        for rank in deciding:
            rank.choose()
        with_prompts = [rank for rank in deciding if rank.prompts]
        if not self._go(len(with_prompts) == len(self.ranks)):
            for rank in with_prompts:
                rank.wait()
        self._going = [rank for rank, load in zip(self.ranks, ahead, strict=True) if load is not None]
        self._decided, loads = [], []
        for rank, load in zip(self.ranks, ahead, strict=True):
            if load is None and (load := rank.begin(now_s)) is not None:
                self._decided.append(rank)
            loads.append(load or NOTHING)
        return tuple(loads) if self._going or self._decided else None

    def _go(self, all_have_prompts: bool) -> bool:
        """Return whether the prompts of this step run, and count those that wait."""
        rules = self.rules
        answering = all(rank.answers > 0 for rank in self.ranks)
        if all_have_prompts and all(rank.answers < rules.sequences for rank in self.ranks):
            self._waited = 0
            if answering and self._gathered < rules.rank_gather_steps:
                self._gathered += 1
                return False
            self._gathered = 0 if answering else self._gathered
            return True
        self._waited += 1
        if answering and self._waited < rules.rank_wait_steps:
            return False
        self._waited = 0
        return True
