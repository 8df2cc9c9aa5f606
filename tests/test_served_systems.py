"""The labels of rows, and how they are asked about, in benchmarks/served_systems.py, which scores records on published served systems."""

from collections import Counter
from dataclasses import replace

import pytest

from roofline.engines import load_engine


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


def test_rows_are_asked_about_as_their_benchmark_ran(systems, rows):
    """A row labelled mtp yields (1 − 0.65⁴)/0.35 tokens a step, (1 − 0.75⁴)/0.25 where prompts run apart; drawn lengths are 0.9 of the nominal ones."""
    common = {
        "line": 1,
        "apart": False,
        "machine": "h100-sxm",
        "engine": "vllm",
        "version": "",
        "family": "Llama-3.1-8B",
        "precision": "bf16",
    }
    what = {"model": "llama-3.1-8b", "weights": None, "kv": "bf16", "tensor": 1, "data": 1, "expert": 1, "repaired": ""}
    measured = {"isl": 921.6, "osl": 921.6, "drawn": True, "concurrency": 16.0, "ttft_s": 0.1, "tpot_s": 0.01}
    plain, drafted = (rows.Served(**common, **what, **measured, speculative=label) for label in ("none", "mtp"))
    assert systems.tokens_of([drafted]) == pytest.approx(2.347125)
    assert systems.tokens_of([replace(drafted, apart=True)]) == 2.734375
    found = systems.served_as(systems.deploy(plain), [plain])
    service = found.operation.service
    assert (service.rounds, service.server.step_tokens, found.batch.tolist()) == (10, 8192, [16])
    assert systems.predict(systems.deploy(plain), systems.Records(None).generic, [plain])[0].tpot_s > 0


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


@pytest.mark.parametrize(
    ("read", "swept", "ran"),
    [
        (
            (1, 4, 4, "tp=dp=n"),
            {(4, 4, False), (4, 1, False)},
            (4, 1, 4, "swept"),
        ),  # Kimi-K2.5, B200: times equal those of rows labelled so
        ((1, 4, 4, "tp=dp=n"), {(4, 4, True)}, (1, 4, 4, "tp=dp=n")),
        ((4, 1, 2, ""), {(1, 1, False), (2, 2, False), (4, 4, False)}, (2, 1, 2, "swept")),  # gpt-oss, H200: times are those of two devices
        ((1, 4, 2, ""), {(2, 2, True)}, (1, 2, 2, "swept")),
        ((8, 1, 1, ""), {(8, 8, False)}, (8, 1, 8, "swept")),  # DeepSeek-R1, H200: the degree of experts was not given
        ((8, 1, 1, ""), {(8, 8, True), (4, 4, True)}, (1, 8, 8, "swept")),
        ((8, 1, 1, ""), {(8, 8, True), (8, 8, False)}, (8, 1, 1, "")),  # which of both is not plain
        ((8, 1, 4, ""), {(8, 8, False)}, (8, 1, 4, "")),
        ((8, 1, 1, ""), {(8, 1, False), (8, 8, False)}, (8, 1, 1, "")),
        ((8, 1, 1, ""), set(), (8, 1, 1, "")),
    ],
)
def test_degrees_that_no_sweep_ran_are_read_as_the_one_that_did(rows, read, swept, ran):
    assert rows.as_swept(read[:3], read[3], swept) == ran


def test_rows_of_a_source_whose_times_are_a_sweeps_have_its_lengths(rows, sample):
    """122 of the 123 rows of two files that do not say so have, to the digit shown, the times of rows of InferenceX."""

    def measured(row):
        return round(float(row["silicon_tpot_ms"]), 2), round(float(row["silicon_ttft_ms"]))

    sources = [(row["silicon_data_source"], measured(row)) for row in sample if row["mode"] == "agg"]
    of_sweeps = {times for source, times in sources if source.startswith(("db-dump", "source_file=2026"))}
    others = [times for source, times in sources if "-gap-analysis.csv" in source and "aic-auto" not in source]
    assert (len(others), sum(times in of_sweeps for times in others)) == (123, 122)


def test_images_are_compared_without_their_host(rows):
    assert rows.image_of("a.csv; silicon_concurrency=8; image=nvcr.io#nvidia/tensorrt-llm/release:1.2") == "nvidia/tensorrt-llm/release:1.2"
    assert rows.image_of("db-dump/2026-04-27; config_id=1; vllm/vllm-openai:v0.19.0") == "vllm/vllm-openai:v0.19.0"
    assert rows.image_of("a.csv; measured=2026-02-06T00:00:00.000Z; wip=False") == ""


def test_all_but_64_aggregated_rows_are_mapped(rows, sample):
    """The counts that a trial on the same sample reached, with its repairs of 257, 97, 38 and 19 rows, less nine as labelled.

    Of its 97 rows, and of 137 as labelled, the sweep files say what ran.
    """
    read = Counter(row if isinstance(row, str) else row.repaired for row in rows.aggregated(sample))
    assert sum(read.values()) == 3619
    assert read == {
        "": 3007,
        "swept": 221,
        "tp=n²": 257,
        "tp=dp=n": 13,
        "dp=n²": 38,
        "experts": 19,
        "devices of a disaggregated run in all, filed as one system": 55,
        "more clients than any version of its sweep ran": 9,
    }


def test_rows_of_more_clients_than_their_sweep_ran_were_ten_waves_of_fewer(rows, sample):
    """Ten prompts for each of n < 51 clients who all ask at once, of whom n run: they wait 4.5 answers on average, of 64 clients 4.2; as measured."""
    lines = [row for row in sample if "silicon_concurrency=512" in row["silicon_data_source"] and row["system"] == "h100_sxm"]
    lines = [row for row in lines if "gpt-oss" in row["model_path"] and row["backend"] == "vllm"]
    waits = [float(row["silicon_ttft_ms"]) / (float(row["silicon_tpot_ms"]) * 0.9 * float(row["osl"])) for row in lines]
    assert len(waits) == 9
    assert min(waits) > 4.2
    assert max(waits) < 4.9


def test_what_the_scripts_of_the_sweeps_say_of_a_row(rows):
    """InferenceX, benchmarks/single_node: gptoss_fp4_b200.sh (VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8), dsr1_fp8_b200_trt.sh and dsr1_fp8_b200_trt_mtp.sh."""
    oss = served_row(rows, family="gpt-oss-120b", model="gpt-oss-120b", machine="b200-sxm")
    assert oss.checkpoint() == ("gpt-oss-120b", {"experts": "mxfp4_afp8"})
    assert replace(oss, machine="h100-sxm").checkpoint() == ("gpt-oss-120b", None)
    latent = {"family": "DeepSeek", "model": "deepseek-r1", "machine": "b200-sxm", "engine": "trtllm", "precision": "fp8", "tensor": 8}
    newer = served_row(rows, **latent, version="1.2.0rc6.post2", speculative="mtp")
    assert (newer.borrowed, newer.drafts) == (True, 3)
    older, apart = replace(newer, version="1.1.0rc2"), replace(newer, tensor=1, data=8)
    assert (older.borrowed, apart.borrowed, apart.drafts) == (False, False, 1)


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


def served_row(rows, **changed):
    """Return a row such as an InferenceX sweep has, measured at some time."""
    labels = {
        "line": 1,
        "apart": False,
        "machine": "h100-sxm",
        "engine": "vllm",
        "version": "0.19.0",
        "family": "Llama-3.1-8B",
        "model": "llama-3.1-8b",
        "precision": "bf16",
        "weights": None,
        "kv": "bf16",
        "tensor": 1,
        "data": 1,
        "expert": 1,
        "isl": 921.6,
        "osl": 921.6,
        "drawn": True,
        "concurrency": 4.0,
        "speculative": "none",
        "repaired": "",
        "ttft_s": 0.1,
        "tpot_s": 0.01,
    }
    return rows.Served(**{**labels, **changed})


def test_of_two_rows_that_the_sweep_ran_both_ways_the_faster_one_drafts(rows):
    """Rows whose times per token are less than a tenth apart may be the same thing, measured twice."""
    fast, slow = (served_row(rows, speculative="either", tpot_s=tpot_s) for tpot_s in (0.007, 0.013))
    again, other = (served_row(rows, speculative="either", tpot_s=tpot_s, concurrency=8.0) for tpot_s in (0.0200, 0.0205))
    found = list(rows.decided([fast, "a reason", slow, again, other]))
    assert [row if isinstance(row, str) else row.speculative for row in found] == ["mtp", "a reason", "none", "either", "either"]


def test_clients_ask_as_those_of_the_sweeps_do(import_benchmark, rows):
    """``benchmark_serving.py``: ``random-range-ratio`` 0.8 draws lengths from 0.8–1.0 of the nominal ones, ``max-concurrency`` clients begin at once."""
    asked = import_benchmark("served_requests")
    drawn = asked.requests(served_row(rows, concurrency=64.0), 0.05)
    assert drawn.prompt.min() >= 819
    assert drawn.prompt.max() <= 1024
    assert (drawn.after[:64] == -1).all()
    assert (drawn.after[64:] == range(len(drawn) - 64)).all()
    assert drawn.arrival_s.max() <= 0.1
    alike = {"isl": 1024.0, "osl": 128.0, "drawn": False}
    apart, together = (asked.requests(served_row(rows, engine=engine, **alike), 0.05).output[:4] for engine in ("vllm", "sglang"))
    assert len(set(apart)) > 1
    assert set(together) == {128}


def test_each_round_counts_as_in_ten(import_benchmark, rows):
    weights = import_benchmark("served_requests").weights(served_row(rows), 5 * 4)
    assert weights.reshape(5, 4).sum(axis=1) == pytest.approx([0.1, 0.8 / 3, 0.8 / 3, 0.8 / 3, 0.1])


def test_engines_are_told_what_the_scripts_of_the_sweeps_say(import_benchmark, rows):
    """InferenceX, benchmarks/dsr1_fp4_b200 (``SCHEDULER_RECV_INTERVAL``) and the script of Llama 70B with TensorRT-LLM (``batch_wait_*``)."""
    told = import_benchmark("served_told").told
    sglang = {"family": "DeepSeek", "engine": "sglang", "machine": "b200-sxm", "tensor": 8}
    assert [told(served_row(rows, **sglang, concurrency=clients))["receive_interval"] for clients in (8.0, 16.0)] == [10, 30]
    always = served_row(rows, **sglang | {"family": "Qwen3.5-397B", "machine": "b300-sxm", "precision": "fp8"}, concurrency=64.0)
    assert told(always)["receive_interval"] == 10  # qwen3.5_fp8_b300.sh
    assert told(served_row(rows, **sglang | {"family": "GLM-5"}))["receive_interval"] == 1
    trtllm = {"family": "Llama-3.1-70B", "engine": "trtllm", "isl": 921.6, "osl": 921.6}
    waits = [told(served_row(rows, **trtllm, tensor=tensor)).get("batch_wait_steps", 0) for tensor in (4, 8)]
    assert waits == [20, 0]
    assert told(served_row(rows, **trtllm))["step_tokens"] == 16384


def test_data_parallel_ranks_and_batches_wait_as_the_scripts_say(import_benchmark, rows):
    """InferenceX: ``attention_dp_config`` of dsr1_fp8_b200_trt.sh (timeout_iters 60) and gptoss_fp4_b200_trt.sh (TensorRT-LLM's 50 and 10); DELAY_BATCHING."""
    told = import_benchmark("served_told").told
    latent = {"family": "DeepSeek", "machine": "b200-sxm", "engine": "trtllm", "precision": "fp8", "version": "1.2.0rc6.post2"}
    apart = told(served_row(rows, **latent, data=8, concurrency=256.0))
    assert (apart["rank_wait_steps"], apart.get("rank_gather_steps", 0)) == (60, 0)
    oss = {"family": "gpt-oss-120b", "engine": "trtllm", "data": 2}
    blackwell, hopper = (told(served_row(rows, **oss, machine=machine)) for machine in ("b200-sxm", "h200-sxm"))
    assert (blackwell["rank_wait_steps"], blackwell["rank_gather_steps"], "rank_wait_steps" in hopper) == (50, 10, False)
    waits = [told(served_row(rows, **latent, concurrency=clients)).get("batch_wait_steps", 0) for clients in (32.0, 64.0, 256.0)]
    assert waits == [0, 40, 0]


def test_steps_hold_as_many_tokens_as_the_scripts_say(import_benchmark, rows):
    """InferenceX: MAX_NUM_TOKENS of dsr1_fp8_h200_trt_mtp.sh, ((MTP + 1) · batch + ISL + 127) / 64 · 64, and chunked-prefill-size of SGLang's scripts."""
    told = import_benchmark("served_told").told
    latent = {"family": "DeepSeek", "machine": "h200-sxm", "precision": "fp8"}
    drafted = told(served_row(rows, **latent, engine="trtllm", speculative="mtp", concurrency=64.0))
    assert drafted["step_tokens"] == (4 * 64 + 1024 + 127) // 64 * 64 == 1344
    assert told(served_row(rows, **latent, engine="trtllm", concurrency=64.0))["step_tokens"] == 8192
    assert told(served_row(rows, **latent, engine="sglang"))["step_tokens"] == 32768  # dsr1_fp8_h200.sh
    assert told(served_row(rows, **latent | {"family": "Qwen3.5-397B"}, engine="sglang"))["step_tokens"] == 16384  # qwen3.5_fp8_h200.sh
    assert told(served_row(rows, **latent | {"family": "GLM-5"}, engine="sglang"))["step_tokens"] == 8192  # glm5_fp8_h200.sh has none


def test_hosts_of_rows_take_what_their_clients_and_versions_say(import_benchmark, rows):
    """2.4 ms for 128 × 131,072 logits (github.com/vllm-project/vllm, pull request 40376) are 21.7 µs for the 151,936 of Qwen3."""
    engine_of = import_benchmark("served_told").engine_of
    usual = engine_of(served_row(rows)).host
    qwen = served_row(rows, family="Qwen3-32B", model="qwen3-32b", drawn=False, version="0.12.0")
    assert engine_of(qwen).host.sequence_s - usual.sequence_s == pytest.approx(21.73e-6, rel=1e-3)
    assert (qwen.client_s, served_row(rows).client_s) == (0.06, 0.0)
    state = {"family": "Qwen3.5-397B", "model": "qwen3.5-397b-a17b", "engine": "sglang"}
    versions = ("0.5.9", "0.5.10.post1", "nightly-dev-20260216-d3bae71e", "nightly-dev-20260402-d7256eb6", "nightly-dev")
    known = [engine_of(served_row(rows, **state, version=version)).host.layer_s.recurrent_experts is not None for version in versions]
    assert known == [True, False, True, False, True]


def test_which_steps_with_prompts_run_from_graphs_is_as_the_scripts_say(import_benchmark, rows):
    """InferenceX: ``max-cudagraph-capture-size: 2048`` in gptoss_fp4_h100.sh; ``PIECEWISE_CUDA_GRAPHS`` from 64 clients in dsr1_fp8_b200_trt.sh, 1k / 1k."""
    graph_tokens_of = import_benchmark("served_told").graph_tokens_of
    assert graph_tokens_of(served_row(rows, family="gpt-oss-120b")) == 2048
    latent = {"family": "DeepSeek", "machine": "b200-sxm", "engine": "trtllm", "precision": "fp8", "version": "1.2.0rc6.post2"}
    few, many = (graph_tokens_of(served_row(rows, **latent, concurrency=clients)) for clients in (32.0, 64.0))
    assert few == 0 < 8192 < many
    assert graph_tokens_of(served_row(rows)) == 512


def test_constants_are_found_in_simulated_times(import_benchmark, rows, systems):
    """Times of rows are linear in the constants, so that simulated rows say with which they were simulated."""
    asked, fitting = import_benchmark("served_requests"), import_benchmark("served_fit")
    known = asked.Host(request_s=0.08, sequence_s=5e-6, dense=1.1, experts=0.9, prefill=1.2)
    parts = []
    for clients in (1.0, 4.0, 16.0):
        row = served_row(rows, concurrency=clients, isl=512.0, osl=32.0, drawn=False)
        deployment, record = systems.deploy(row), systems.Records(None).own(row.machine, row.engine)
        server = asked.Server.of(deployment, record, [row])
        found = asked.run(server, known, row)
        measured = served_row(rows, concurrency=clients, isl=512.0, osl=32.0, drawn=False, tpot_s=found.tpot_s, ttft_s=found.ttft_s(known))
        parts.append(fitting.parts_of(server, known, measured))
        assert parts[-1].error(known) == pytest.approx(0.0, abs=1e-9)
    profile = asked.Host.of(load_engine("vllm"))
    worst = [max(abs(part.error(host)) for part in parts) for host in (profile, fitting.fit(parts, profile, prior=0.01))]
    assert worst[1] < 0.05 < worst[0]


def test_a_tenth_of_the_measurements_is_drawn_for_each_engine_and_machine(import_benchmark, rows):
    """Rows of equal times are one measurement, wherever they stand."""
    sample = [served_row(rows, machine=machine, tpot_s=0.01 + i // 2 * 1e-4) for machine in ("h100-sxm", "h200-sxm") for i in range(80)]
    found = import_benchmark("served_fit").drawn(sample, 0)
    assert len(found) <= 8
    assert found == import_benchmark("served_fit").drawn(sample, 0)
    assert found <= {(row.tpot_s, row.ttft_s) for row in sample}


def test_an_interval_leaves_a_tenth_out_at_each_end(import_benchmark):
    """Of nine errors the least and the greatest are its ends: a tenth one lies outside of them with a chance of 2/10."""
    errors = [0.1 * place for place in range(-4, 5)]
    assert import_benchmark("served_fit").interval(errors) == pytest.approx((2.718281828**-0.4, 2.718281828**0.4))


def test_later_versions_are_what_was_published(rows):
    """github.com/SemiAnalysisAI/InferenceX, pull requests 3173, 3175, 3183 and 3363: five, seven and six clients of two lengths, degrees and formats."""
    later = rows.later()
    assert Counter(row.machine for row in later) == {"h200-sxm": 10, "b300-sxm": 24, "b200-sxm": 10}
    first = later[0]
    assert (first.tensor, first.expert, first.concurrency, first.isl, first.osl) == (8, 1, 4.0, 921.6, 921.6)
    assert (first.ttft_s, first.tpot_s) == pytest.approx((0.15777, 0.0097))
    assert {row.kv for row in later if row.machine == "h200-sxm"} == {"bf16"}
    assert {row.kv for row in later if row.machine != "h200-sxm"} == {"fp8"}
    assert {row.drafts for row in later} == {0}


def test_later_versions_are_paired_with_rows_of_their_labels(import_benchmark, rows):
    fitting = import_benchmark("fit_engines")
    one = rows.later()[0]
    alike = replace(one, version="0.5.9", tpot_s=0.0103, ttft_s=0.26)
    others = [replace(alike, concurrency=5.0), replace(alike, speculative="mtp")]
    now, then = fitting.pairs([*others, alike])
    assert now == [one]
    assert then == [replace(one, tpot_s=0.0103, ttft_s=0.26)]
