"""Schedulers of the engines: what each step holds, by the rules of each engine."""

from roofline.serving.schedulers.base import Scheduler
from roofline.serving.schedulers.pipelined_vllm import PipelinedVllm
from roofline.serving.schedulers.ranks import Ranks
from roofline.serving.schedulers.ring import PipelinedSglang, PipelinedTrtllm
from roofline.serving.schedulers.sglang import SglangScheduler
from roofline.serving.schedulers.trtllm import TrtllmScheduler
from roofline.serving.schedulers.trtllm_ranks import BalancedRanks
from roofline.serving.schedulers.vllm import VllmScheduler

__all__ = [
    "BalancedRanks",
    "PipelinedSglang",
    "PipelinedTrtllm",
    "PipelinedVllm",
    "Ranks",
    "Scheduler",
    "SglangScheduler",
    "TrtllmScheduler",
    "VllmScheduler",
]
