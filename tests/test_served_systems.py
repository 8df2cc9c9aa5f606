"""The labels of rows, and how they are asked about, in benchmarks/served_systems.py, which scores records on published served systems."""

from collections import Counter

import pytest


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
    """A row labelled mtp yields (1 − 0.75⁴)/0.25 = 2.734375 tokens a step; drawn lengths are 0.9 of the nominal ones."""
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
    assert systems.tokens_of([drafted]) == 2.734375
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
