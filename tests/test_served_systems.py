"""The closed form and the labels of benchmarks/served_systems.py, which scores records on published served systems."""

from collections import Counter

import numpy as np
import pytest

from roofline import Deployment, StepTime


@pytest.fixture(scope="module")
def systems(import_benchmark):
    return import_benchmark("served_systems")


@pytest.fixture(scope="module")
def rows(import_benchmark):
    return import_benchmark("served_rows")


@pytest.fixture(scope="module")
def sample(rows):
    if rows.data_folder() is None:
        pytest.skip("aiconfigurator-core is not installed: a wheel for Linux x86-64 with the sample of served systems")
    return rows.sample()


def test_time_per_token_is_the_fixed_point_of_its_own_definition(systems):
    """By hand: D = 20 ms, osl = 100, P₁ = 1 s, ΔP = 0.5 s and b = 6 give TPOT = 40 ms, since n = 5 · 4 s / (4 s + 1 s) = 4."""
    per_token = systems.time_per_token(*(np.array([value]) for value in (0.02, 0.5, 1.0, 6.0, 100.0)))
    assert per_token == pytest.approx([0.04])
    assert pytest.approx(0.04) == 0.02 + 4 * 0.5 / 100


def test_a_single_client_waits_for_decode_steps_only(systems):
    assert systems.time_per_token(*(np.array([value]) for value in (0.02, 0.5, 1.0, 1.0, 100.0))) == pytest.approx([0.02])


def test_time_to_the_first_token_has_prompt_half_step_burst_and_queue(systems):
    """By hand: 1 + 0.02/2 + 0.1 · 5/2 · min(0.5, 0.9) + 0.9 · (9 − 6) · (100 · 0.04 + 1)/6 = 3.385 s."""
    values = {"per_token": 0.04, "decode": 0.02, "added": 0.5, "prompt": 1.0, "alone": 0.9, "batch": 6.0, "clients": 9.0, "answer": 100.0}
    assert systems.time_to_first(**{name: np.array([value]) for name, value in values.items()}) == pytest.approx([3.385])


def test_a_prompt_runs_in_chunks_beside_the_decodes(systems):
    """20,000 tokens are three chunks; whether steps took their tokens, or what they have in the cache, in seconds."""

    def tokens(count, new, cached, *, sampled):
        return (np.asarray(count) * new).sum(axis=-1)

    def cache(count, new, cached, *, sampled):
        return (np.asarray(count) * cached).sum(axis=-1)

    load = systems.Load(np.array([20_000.0]), np.array([100.0]), np.array([4.0]), np.array([4.0]), ranks=1, verified=1)
    mixed, added, alone = systems.prompt_steps(tokens, load, systems.decode_steps(tokens, load))
    assert (mixed, added, alone) == (3 * 4 + 20_000, 20_000, 20_000)
    mixed, added, alone = systems.prompt_steps(cache, load, systems.decode_steps(cache, load))
    assert (mixed, added, alone) == (3 * 4 * 20_050 + 8_192 + 16_384, 8_192 + 16_384, 8_192 + 16_384)


def test_prompts_of_equal_length_share_a_step_of_the_host(systems):
    """A second for every step, 4 clients: prompts of 1,000 tokens share one, those of 5,000 do not fit beside each other, drawn ones never."""

    def host(count, new, cached, *, sampled):
        return np.ones(np.broadcast_shapes(*map(np.shape, (count, new, cached)))[:-1])

    prompts, four, decode = np.array([1_000.0, 5_000.0, 1_000.0]), np.full(3, 4.0), np.full(3, 0.2)
    load = systems.Load(prompts, np.full(3, 100.0), four, four, ranks=1, verified=1, drawn=np.array([False, False, True]))
    assert load.together.tolist() == [4, 1, 1]
    _, added, _ = systems.prompt_steps(host, load, decode, load.together)
    assert added == pytest.approx([0.8 / 4, 0.8, 0.8])


def test_loads_of_different_chunks_go_together(systems):
    time = StepTime(Deployment("llama-3.1-8b", "h100-sxm"))
    prompts = np.array([500.0, 9_000.0])
    both = systems.Load(prompts, np.array([100.0, 100.0]), np.array([4.0, 8.0]), np.array([4.0, 8.0]), ranks=1, verified=1)
    together = systems.prompt_steps(time, both, systems.decode_steps(time, both))
    for at, prompt in enumerate(prompts):
        one = systems.Load(np.array([prompt]), both.answer[[at]], both.clients[[at]], both.batch[[at]], ranks=1, verified=1)
        alone = systems.prompt_steps(time, one, systems.decode_steps(time, one))
        assert [value[at] for value in together] == pytest.approx([value[0] for value in alone])


@pytest.mark.parametrize(
    ("labelled", "read"),
    [
        ((64, 1, 8, 8), (8, 1, 8, "tp=n²")),  # the ids of these rows say tp8_ep8
        ((16, 1, 4, 4), (4, 1, 4, "tp=n²")),
        ((1, 64, 8, 8), (1, 8, 8, "dp=n²")),
        ((4, 4, 1, 16), (1, 4, 4, "tp=dp=n")),
        ((1, 1, 4, 1), (4, 1, 1, "experts")),
        ((8, 1, 8, 1), (8, 1, 1, "")),
        ((4, 1, 2, 2), (4, 1, 2, "")),
        ((1, 8, 1, 8), (1, 8, 8, "")),
        ((8, 1, 1, 1), (8, 1, 1, "")),  # dense
    ],
)
def test_degrees_that_cannot_be_are_read_as_those_that_were_run(rows, labelled, read):
    assert rows.degrees(*labelled) == read


def test_images_are_compared_without_their_host(rows):
    assert rows.image_of("a.csv; silicon_concurrency=8; image=nvcr.io#nvidia/tensorrt-llm/release:1.2") == "nvidia/tensorrt-llm/release:1.2"
    assert rows.image_of("db-dump/2026-04-27; config_id=1; vllm/vllm-openai:v0.19.0") == "vllm/vllm-openai:v0.19.0"
    assert rows.image_of("a.csv; measured=2026-02-06T00:00:00.000Z; wip=False") == ""


def test_all_but_55_aggregated_rows_are_mapped(rows, sample):
    """The counts that a trial on the same sample reached, with its repairs of 257, 97, 38 and 19 rows."""
    read = Counter(row if isinstance(row, str) else row.repaired for row in rows.aggregated(sample))
    assert sum(read.values()) == 3619
    assert read == {
        "": 3153,
        "tp=n²": 257,
        "tp=dp=n": 97,
        "dp=n²": 38,
        "experts": 19,
        "devices of a disaggregated run in all, filed as one system": 55,
    }


def test_where_sample_and_sweeps_both_name_decode_workers_they_agree(rows, sample):
    """So that the sweep files may say it of the other rows."""
    entries = rows.labels()
    both = 0
    for row in sample:
        what = rows.served_as(row)
        if row["mode"] != "disagg" or not row["decode_num_workers"] or isinstance(what, str):
            continue
        pools = [rows.labelled_degrees(row, f"{pool}_") for pool in ("prefill", "decode")]
        key = (*rows.load_key(row, what, rows.clients(row)), *(str(tensor * data) for tensor, data, _, _ in pools))
        found = entries.get((*key, rows.image_of(row["silicon_data_source"])), [])
        both += bool(found)
        assert not found or float(row["decode_num_workers"]) in {float(entry["d_nw"]) for entry in found}
    assert both > 200


def test_records_of_a_folder_stand_before_the_shipped_ones(systems, repository, tmp_path):
    shipped = repository / "hardware_specs" / "measured"
    record = (shipped / "h200-sxm-vllm-0.24.0.json").read_text(encoding="utf-8").replace("h200-sxm-vllm-0.24.0", "h200-sxm-vllm-0.23.9")
    (tmp_path / "h200-sxm-vllm-0.23.9.json").write_text(record, encoding="utf-8")
    records = systems.Records(tmp_path)
    assert records.own("h200-sxm", "vllm").id == "h200-sxm-vllm-0.23.9"  # although it is older
    assert records.own("h100-sxm", "vllm").id == systems.Records(None).own("h100-sxm", "vllm").id
    assert records.generic.id == "generic"
