"""What every answer says of the deployment it is about: what its names are read as, and what a batch is in a pipeline."""

import warnings

import pytest

from roofline import (
    Deployment,
    StepTime,
    critical_batch,
    decode_estimate,
    decode_floor,
    explain,
    journey,
    levers,
    max_batch,
    max_context,
    resident,
    step_floor,
    sweep,
)
from roofline.batching import context_without_compute, free_rows
from roofline.cli.app import run
from roofline.step import Step

MODEL = "llama-3.1-8b"
ANSWERS = {
    "decode_floor": decode_floor,
    "decode_estimate": decode_estimate,
    "step_floor": lambda *of, **degrees: step_floor(*of, Step.decode(batch=8), **degrees),
    "resident": resident,
    "journey": journey,
    "critical_batch": critical_batch,
    "free_rows": free_rows,
    "levers": levers,
    "levers in words": lambda *of, **degrees: levers(*of, **degrees).explain(),
    "sweep": sweep,
    "StepTime.table": lambda *of, **degrees: StepTime(Deployment(*of, **degrees), "floor").table(batch=8, context=100),
    "explain": lambda *of, **degrees: explain(decode_floor(*of, **degrees)),
}
NUMBERS = {
    "max_batch": lambda *of, **degrees: max_batch(*of, context=1000, **degrees),
    "max_context": max_context,
    "context_without_compute": context_without_compute,
}
# a p5.48xlarge has eight H100: https://aws.amazon.com/ec2/instance-types/p5
NODE, READ_AS = "p5.48xlarge", '"p5.48xlarge" is read as 8 × h100-sxm'


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_says_how_many_devices_a_name_stands_for_and_how_many_are_used(name):
    text = str(ANSWERS[name](MODEL, NODE))
    assert text.count(READ_AS) == 1
    assert "results are for one device unless degrees are given" in text
    assert READ_AS not in str(ANSWERS[name](MODEL, "h100-sxm"))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_bare_number_for_one_of_several_devices_comes_with_a_warning(name):
    with pytest.warns(UserWarning, match=READ_AS) as said:
        one = NUMBERS[name](MODEL, NODE)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert NUMBERS[name](MODEL, "h100-sxm") == one
        NUMBERS[name](MODEL, NODE, tensor_parallel=8)


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_for_a_pipeline_says_what_a_batch_is(name):
    """vLLM runs as many batches at once as there are pipeline stages (`Executor.max_concurrent_batches`), so that none is idle."""
    text = str(ANSWERS[name](MODEL, "h100-sxm", pipeline_parallel=4))
    assert text.count("batch is that of one step: with 4 pipeline stages 4 steps are in flight, so 4 × batch sequences are in memory") == 1
    assert "batch is that of one step" not in str(ANSWERS[name](MODEL, "h100-sxm", tensor_parallel=4))


@pytest.mark.parametrize("command", ["floor", "estimate", "fit", "levers", "sweep", "journey"])
def test_the_command_line_says_both_once(command, capsys):
    assert not run([command, MODEL, NODE, "--context", "100", "--pp", "4"])
    shown = capsys.readouterr()
    assert shown.out.count(READ_AS) == 1
    assert shown.out.count("with 4 pipeline stages 4 steps are in flight") == 1
    assert not shown.err


def test_the_help_says_that_a_batch_is_of_one_step(capsys):
    assert not run(["floor", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Sequences of one step." in shown
    assert "Stages that share the layers, each with a step in flight: batch is that of one step." in shown
