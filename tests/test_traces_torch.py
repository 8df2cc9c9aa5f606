"""Saved traces of torch's profiler: engines' steps, kernels by name, operators, graphs; real files in data/results/traces, and small ones of the same layout.

What real files hold was counted from them with ``json.load`` and a few lines of Python, without this library.
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from roofline import InvalidValueError, Step, UnknownOptionError, step_estimate, step_floor
from roofline.profile import beside_estimate, compare_ranks, compare_traces, profile_torch, read_trace
from roofline.profile.traces.annotations import read_batch
from roofline.profile.traces.kernels_by_name import class_of

REAL = Path(__file__).parent / "data" / "results" / "traces"
PREFILL, DECODE, CAPTURE = (
    REAL / f"{name}.json.gz" for name in ("sglang_qwen3_8b_prefill", "vllm_gpt_oss_20b_decode", "vllm_gpt_oss_20b_capture")
)
EAGER = REAL / "h100_qwen1.5_0.5b.json.gz"


# events as torch writes them, times in microseconds


def kernel(name, start, time, correlation=0, device=0, **args):
    args = {"correlation": correlation, "device": device, **args}
    return {"ph": "X", "cat": "kernel", "name": name, "pid": device, "tid": 7, "ts": start, "dur": time, "args": args}


def launch(start, correlation, name="cudaLaunchKernel"):
    return {"ph": "X", "cat": "cuda_runtime", "name": name, "pid": 1, "tid": 1, "ts": start, "dur": 1, "args": {"correlation": correlation}}


def annotation(name, start, time, kind="user_annotation"):
    return {"ph": "X", "cat": kind, "name": name, "pid": 1, "tid": 1, "ts": start, "dur": time, "args": {}}


def saved(path, events, **beside):
    path.write_text(json.dumps({**beside, "traceEvents": events}))
    return path


def lengths(step):
    return sum(group.count * (group.cached + group.new) for group in step.groups)


# what annotations say


@pytest.mark.parametrize(
    ("name", "mode", "tokens", "pairs"),
    [
        # decode: every token sees its whole sequence, so pairs are the sum of lengths
        ("execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk55086sqsq32sqsk55086)", "decode", 32, 55086),
        ("step[DECODE bs=64 g_sqsq=64 g_sqsk=131072 g_sk=131072]", "decode", 64, 131072),
        # fresh prompts of 1024: 1024 · 1025 / 2 pairs each
        (
            "execute_15360_context_15(sq15360sk15360sqsq15728640sqsk15728640)_generation_0(sq0sk0sqsq0sqsk0)",
            "prefill",
            15360,
            15 * 1024 * 1025 // 2,
        ),
        # the same two prompts as below, from SGLang
        (
            "step[EXTEND bs=2 toks=14721 c_sqsq=108745533 c_sqsk=120007533 c_sk=16221]",
            "prefill",
            14721,
            7803 * 1000 + 7803 * 7804 // 2 + 6918 * 500 + 6918 * 6919 // 2,
        ),
        # verification of 3 drafts, length 2048 with its own 4: rows see 2045 … 2048
        (
            "execute_128_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq128sk65536sqsq512sqsk262144)",
            "decode",
            128,
            32 * (2045 + 2046 + 2047 + 2048),
        ),
        # two prompts, 7803 and 6918 new tokens after 1000 and 500
        (
            "execute_14721_context_2(sq14721sk16221sqsq108745533sqsk120007533)_generation_0(sq0sk0sqsq0sqsk0)",
            "prefill",
            14721,
            7803 * 1000 + 7803 * 7804 // 2 + 6918 * 500 + 6918 * 6919 // 2,
        ),
    ],
)
def test_sums_of_an_annotation_are_those_of_its_step(name, mode, tokens, pairs):
    batch = read_batch(name)
    step = batch.step()
    assert batch.mode == mode
    assert step.tokens == tokens
    assert step.pairs() == pairs


def test_unlike_prompts_keep_new_and_cached_tokens_and_nearly_their_pairs():
    # 4096 + 2048 new tokens, the second after 1000; beside three that decode at a length of 2048 (TraceLens, SGLANG_annotation.md)
    name = "step[MIXED bs=5 c=2 g=3 c_sq=6144 c_sk=7144 c_sqsq=20971520 c_sqsk=23019520 g_sq=3 g_sk=6144 g_sqsq=3 g_sqsk=6144]"
    step = read_batch(name).step()
    assert [tuple(group) for group in step.groups] == [(1, 4096, 0, 1), (1, 2048, 1000, 1), (3, 1, 2047, 1)]
    six = read_batch("execute_17408_context_6(sq17408sk52224sqsq59768832sqsk179306496)_generation_0(sq0sk0sqsq0sqsk0)").step()
    assert six.tokens == 17408
    assert lengths(six) == 52224
    assert six.pairs() == pytest.approx(179306496 - (59768832 - 17408) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "given", "groups"),
    [
        ("execute_context_0(0)_generation_64(64)", {"context": 1000}, [(64, 1, 1000, 1)]),
        ("execute_context_0(0)_generation_32(128)", {"context": 1000}, [(32, 4, 1000, 4)]),  # three drafts each
        ("execute_context_2(6144)_generation_3(3)", {"context": 500, "cached": 0}, [(2, 3072, 0, 1), (3, 1, 500, 1)]),
        ("step[EXTEND bs=15 toks=15360]", {"cached": 0}, [(15, 1024, 0, 1)]),
        ("step[DECODE bs=32]", {"context": 7}, [(32, 1, 7, 1)]),
    ],
)
def test_what_an_annotation_does_not_say_is_given(name, given, groups):
    batch = read_batch(name)
    assert batch.step() is None
    assert [tuple(group) for group in batch.step(**given).groups] == groups


@pytest.mark.parametrize(
    "name", ["ProfilerStep#6", "execute_new_3_cached_2", "step[DECODE]", "execute_context_1(2)", "capture_32_FULL", ""]
)
def test_other_annotations_are_no_steps(name):
    assert read_batch(name) is None


def test_sums_that_no_batch_has_make_no_step(tmp_path):
    name = "execute_4_context_0(sq0sk0sqsq0sqsk0)_generation_4(sq4sk3sqsq4sqsk3)"  # lengths below the new tokens
    path = saved(tmp_path / "t.json", [annotation(name, 0, 10), launch(1, 5), kernel("gemm", 20, 5, 5)])
    (step,) = read_trace(path).steps
    assert step.step is None
    with pytest.raises(InvalidValueError, match="no batch has these sums"):
        read_batch(name).step()


# what kernels do


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (
            "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas",
            "matrices",
        ),
        ("nvjet_tst_128x64_64x10_1x2_h_bz_TNT", "matrices"),
        ("Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT128x256x32", "matrices"),
        ("void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<cutlass::bfloat16_t>>>", "attention"),
        ("void flashinfer::BatchDecodeWithPagedKVCacheKernel<...>", "attention"),
        ("void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>", "norm"),
        ("void flashinfer::sampling::TopKTopPSamplingFromProbKernel<...>", "sampling"),
        ("void flashinfer::activation::act_and_mul_kernel<__nv_bfloat16, &silu>", "elementwise"),
        ("void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>", "attention"),
        ("fused_moe_kernel", "experts"),
        ("_matmul_ogs_NNT_bf16xbf16xmxfp4_16x128x256x1_swiglu", "experts"),
        ("void deep_gemm::sm90_m_grouped_gemm_fp8_fp8_bf16_nt_contiguous", "experts"),
        ("_ZN5aiter24add_rmsnorm_quant_kernelIDF16bDF16bLi64E", "norm"),
        ("per_token_group_quant_8bit_kernel", "quantize"),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "collective"),
        ("void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>", "collective"),
        ("void vllm::rotary_embedding_kernel<c10::BFloat16, true>", "elementwise"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::bfloat16_copy_kernel_cuda(at::TensorIteratorBase&)>", "copy"),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("triton_red_fused_add_mean_mul_pow_rsqrt_2", "norm"),
        ("_causal_conv1d_update_kernel", "state"),
        ("something_else", "other"),
    ],
)
def test_kernels_are_told_apart_by_their_names(name, kind):
    assert class_of(name) == kind


# real traces of engines


def test_decode_of_gpt_oss_under_a_full_graph_has_the_devices_time_and_its_step():
    trace = read_trace(DECODE)
    (step,) = trace.steps
    assert step.mode == "decode"
    assert step.sequences == 32
    assert lengths(step.step) == 55086  # Σ lengths, as the annotation says; the host's range is 2.4 ms
    assert step.busy_s == pytest.approx(10.7177e-3, rel=1e-4)
    assert step.measured_s == pytest.approx(10.7432e-3, rel=1e-4)
    assert step.kernels == 434
    by_name = {kernel.name: kernel for kernel in trace.kernels}
    products = [by_name[f"_matmul_ogs_NNT_bf16xbf16xmxfp4_16x128x256x1{end}"] for end in ("", "_swiglu")]
    assert sum(kernel.time_s for kernel in products) == pytest.approx(7.03e-3, rel=1e-3)
    assert sum(trace.by_class().values()) == pytest.approx(trace.kernels_s)
    assert trace.profile is None
    assert any("3% of the kernels name the operator" in note for note in trace.notes)


def test_decode_of_gpt_oss_stands_beside_its_floor_and_estimate():
    result = beside_estimate(read_trace(DECODE), "gpt-oss-20b", "mi300x")
    (row,) = result.rows
    assert row.floor_s == step_floor("gpt-oss-20b", "mi300x", row.step.step).time_s
    assert row.estimate_s == step_estimate("gpt-oss-20b", "mi300x", row.step.step).time_s
    assert result.over_floor == pytest.approx(10.743 / 2.56, rel=5e-3)
    classes = {row.kinds: row for row in result.classes}
    assert classes["experts"].families == "experts"
    assert classes["copy"].over_estimate is None
    assert sum(row.measured_s for row in result.classes) == pytest.approx(sum(row.step.by_class.values()))
    assert sum(row.estimate_s for row in result.classes) == pytest.approx(step_estimate("gpt-oss-20b", "mi300x", row.step.step).kernels_s)
    assert "× the floor of" in str(result)
    assert json.loads(result.to_json())["classes"]
    assert len(result.to_records()) == 1


def test_prefill_of_qwen3_is_one_step_though_two_annotations_name_it():
    trace = read_trace(PREFILL)
    (step,) = trace.steps
    assert [tuple(group) for group in step.step.groups] == [(15, 1024, 0, 1)]
    assert trace.machine == "mi300x"
    assert step.measured_s == pytest.approx(493.53e-3, rel=1e-4)  # the host's ranges are 522.7 ms and 28.9 ms
    result = beside_estimate(trace, "qwen3-8b")
    assert result.deployment.machine.id == "mi300x"
    assert 2 < result.over_floor < 4
    other = beside_estimate(trace, "qwen3-8b", "h100-sxm").notes
    assert "contradiction: the trace names the machine Instinct MI300X; H100 SXM5 80GB is used" in other
    assert not any("contradiction" in note for note in beside_estimate(trace, "qwen3-8b", "mi300x").notes)
    # its attention is no operator of torch, so the trace has FLOP of its other products only: 36 layers, and the head for 15 rows
    per_layer = 2 * 15360 * (4096 * 6144 + 4096 * 4096 + 3 * 4096 * 12288)
    assert trace.profile.flops == 36 * per_layer + 2 * 15 * 4096 * 151936


def test_eager_prefill_has_all_operators_of_the_profilers_step_and_none_of_the_warm_up():
    trace = read_trace(EAGER)
    assert trace.machine == "h100-sxm"
    assert not trace.steps
    named = [kernel for kernel in trace.kernels if not kernel.name.startswith("Mem")]
    assert sum(kernel.count for kernel in named) == 1029  # of 1465
    products = [row for row in trace.profile.by_operator() if row.name in ("aten::mm", "aten::addmm")]
    assert sum(row.flops for row in products) == pytest.approx(5.515e12, rel=1e-4)
    assert sum(kernel.time_s for kernel in trace.kernels if kernel.kind == "matrices") == pytest.approx(8.85e-3, rel=5e-3)
    assert trace.profile.time_s == pytest.approx(trace.kernels_s)
    assert trace.profile.wall_s == pytest.approx(34.892e-3, rel=1e-3)
    assert trace.profile.hardware.id == "h100-sxm"


def test_capture_of_a_graph_gives_its_replay_operators_and_shapes():
    profile = read_trace(DECODE, capture=CAPTURE, hardware="mi300x").profile
    assert profile.time_s == pytest.approx(10.7177e-3, rel=1e-4)
    rows = {row.name: row for row in profile.by_operator()}
    # 24 layers: q, k, v together and o of 2880 → 5120 and 4096 → 2880, router 2880 → 32, for 32 rows
    assert rows["aten::addmm"].calls == 72
    assert rows["aten::addmm"].flops == 24 * 2 * 32 * (2880 * 5120 + 4096 * 2880 + 2880 * 32)
    assert rows["vllm::moe_forward"].time_s > 7.03e-3
    assert rows["vllm::moe_forward"].flops is None


def test_capture_of_something_else_is_refused(tmp_path):
    other = saved(
        tmp_path / "c.json", [launch(0, 1, "cudaStreamBeginCapture"), launch(1, 2), launch(2, 3, "cudaStreamEndCapture"), kernel("k", 9, 1)]
    )
    with pytest.raises(InvalidValueError, match=r"c\.json is not the capture of what .* replays"):
        read_trace(DECODE, capture=other)


def of_graphs(tmp_path, *sizes, annotated=True):
    """A capture of CUDA, whose launches do not name kernels: a graph of two kernels for each size."""
    events = [kernel("warm_up", 0, 1)]
    for i, size in enumerate(sizes):
        at = 100 * (i + 1)
        events += [annotation(f"capture_{size}_FULL", at, 50)] if annotated else []
        events += [launch(at + 1, 0, "cudaStreamBeginCapture")]
        for j, name in enumerate(("aten::mm", "aten::relu")):
            args = {
                "External id": 10 * size + j,
                "Input Dims": [[size, 64], [64, 64]],
                "Input type": ["float", "float"],
                "Concrete Inputs": ["", ""],
            }
            events.append({"ph": "X", "cat": "cpu_op", "name": name, "pid": 1, "tid": 1, "ts": at + 5 + 10 * j, "dur": 5, "args": args})
            events.append(launch(at + 6 + 10 * j, 10 * size + j))
            events[-1]["args"]["External id"] = 10 * size + j
        events += [launch(at + 40, 0, "cudaStreamEndCapture")]
    return saved(tmp_path / "capture.json", events)


def test_of_captures_that_look_alike_the_smallest_that_holds_the_step_counts(tmp_path):
    replay = [annotation("step[DECODE bs=3]", 0, 10), launch(1, 7, "cudaGraphLaunch"), kernel("gemm", 20, 9, 7), kernel("relu", 30, 2, 7)]
    path = saved(tmp_path / "t.json", replay)
    profile = read_trace(path, capture=of_graphs(tmp_path, 8, 4, 2, 1)).profile
    assert {row.name: row.time_s for row in profile.rows} == {"aten::mm": pytest.approx(9e-6), "aten::relu": pytest.approx(2e-6)}
    assert profile.flops == 2 * 4 * 64 * 64  # padded to 4
    with pytest.raises(InvalidValueError, match="captures for 2, 1, none of which"):
        read_trace(path, capture=of_graphs(tmp_path, 2, 1))
    with pytest.raises(InvalidValueError, match="sizes that it does not say"):
        read_trace(path, capture=of_graphs(tmp_path, 4, 2, annotated=False))
    assert read_trace(path, capture=of_graphs(tmp_path, 4, annotated=False)).profile.flops == 2 * 4 * 64 * 64


def test_a_pass_without_requests_is_measured_and_has_no_floor(tmp_path):
    events = [annotation("execute_context_0(0)_generation_0(0)", 0, 10), launch(1, 1), kernel("gemm", 20, 5, 1)]
    trace = read_trace(saved(tmp_path / "t.json", events))
    assert trace.steps[0].mode == "empty"
    assert not any("no floor" in note for note in trace.notes)


def test_training_on_an_older_rocm_is_read():
    trace = read_trace(REAL / "mi250_rocm62_toy_train.json.gz")
    assert trace.device == "AMD Radeon Graphics"
    assert trace.machine is None
    # ProfilerStep#1 on the device holds 8 of the file's 16 kernels and copies
    assert sum(kernel.count for kernel in trace.kernels) == 8
    (row,) = [row for row in trace.profile.rows if row.name == "aten::addmm"]
    assert row.flops == 2 * 5 * 128 * 128


# steps and kernels


def test_kernels_belong_to_the_step_that_launched_them_and_steps_do_not_overlap(tmp_path):
    events = [
        annotation("step[DECODE bs=2]", 0, 10),
        launch(1, 1),
        launch(2, 2),
        annotation("step[DECODE bs=3]", 20, 10),
        launch(21, 3),
        launch(22, 4),
        kernel("gemm", 100, 50, 1),
        kernel("gemm", 150, 40, 2),  # ends at 190
        kernel("Memcpy HtoD (Host -> Device)", 160, 5, 3),  # of the second step, beside the first
        kernel("gemm", 200, 30, 4),
        kernel("gemm", 500, 30, 9),  # launched outside
    ]
    first, second = read_trace(saved(tmp_path / "t.json", events), context=8).steps
    assert (first.sequences, second.sequences) == (2, 3)
    assert first.measured_s == pytest.approx(90e-6)
    assert second.measured_s == pytest.approx(40e-6)  # from 190 to 230
    assert second.busy_s == pytest.approx(30e-6)
    assert second.step == Step.decode(batch=3, context=8)
    assert first.before_s is None


def test_time_before_a_step_is_that_of_an_idle_device(tmp_path):
    events = []
    for i in range(3):
        events += [annotation("step[DECODE bs=1]", 100 * i, 10), launch(100 * i + 1, i), kernel("gemm", 100 * i + 5, 60, i)]
    trace = read_trace(saved(tmp_path / "t.json", events), context=1)
    assert [step.before_s for step in trace.steps] == [None, pytest.approx(40e-6), pytest.approx(40e-6)]
    assert trace.idle == pytest.approx(80 / 260)


def test_without_launches_the_devices_own_annotations_say_whose_kernels_are(tmp_path):
    name = "execute_context_0(0)_generation_1(1)"
    events = [annotation(name, 0, 5), annotation(name, 100, 20, "gpu_user_annotation"), kernel("gemm", 101, 9), kernel("gemm", 150, 9)]
    (step,) = read_trace(saved(tmp_path / "t.json", events)).steps
    assert step.kernels == 1


def test_a_kernel_that_names_no_operator_is_that_of_its_launch(tmp_path):
    args = {"External id": 5, "Input Dims": [[8, 64], [64, 64]], "Input type": ["float", "float"], "Concrete Inputs": ["", ""]}
    events = [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 0, "dur": 9, "args": args}]
    events += [launch(2, 7), kernel("gemm", 20, 4, 7)]
    events[1]["args"]["External id"] = 5
    (row,) = read_trace(saved(tmp_path / "t.json", events)).profile.rows
    assert (row.name, row.flops) == ("aten::mm", 2 * 8 * 64 * 64)
    events[1]["name"] = "cudaGraphLaunch"  # the operator of a graph's launch is not that of its kernels
    assert read_trace(saved(tmp_path / "t.json", events)).profile is None


def test_decode_steps_of_a_draft_model_are_not_taken_for_the_models_own(tmp_path):
    events = [annotation("step[DECODE bs=1]", 0, 5), launch(1, 1), kernel("gemm", 10, 1, 1)]
    events += [annotation("step[TARGET_VERIFY bs=1]", 10, 5), launch(11, 2), kernel("gemm", 20, 5, 2)]
    trace = read_trace(saved(tmp_path / "t.json", events), context=8)
    assert [step.mode for step in trace.steps] == ["decode", "target_verify"]
    assert [step.step for step in trace.steps] == [None, None]
    assert any("a draft model's steps are called decode too" in note for note in trace.notes)


def test_a_step_below_its_floor_says_which_label_would_explain_it():
    trace = read_trace(PREFILL)
    result = beside_estimate(trace, "llama-3.1-70b", "h100-sxm")
    assert result.over_floor < 1
    assert any(label.lifts and "tensor_parallel" in label.change for label in result.labels)
    assert "BELOW THE FLOOR" in str(result)


def test_steps_without_contexts_are_refused_beside_an_estimate_with_what_to_give(tmp_path):
    path = saved(tmp_path / "t.json", [annotation("step[DECODE bs=2]", 0, 10), launch(1, 1), kernel("gemm", 20, 5, 1)])
    with pytest.raises(InvalidValueError, match="give context="):
        beside_estimate(read_trace(path), "llama-3-8b", "h100-sxm")
    assert beside_estimate(read_trace(path, context=100), "8B", "h100-sxm").estimate_s is None


def test_a_trace_of_several_ranks_asks_how_they_share_the_model(tmp_path):
    events = [annotation("step[DECODE bs=2]", 0, 10), launch(1, 1), kernel("gemm", 20, 50000, 1)]
    path = saved(tmp_path / "t.json", events, distributedInfo={"rank": 3, "world_size": 4})
    trace = read_trace(path, context=100)
    assert (trace.rank, trace.world_size) == (3, 4)
    assert any("4 ranks" in note for note in beside_estimate(trace, "llama-3-8b", "h100-sxm").notes)
    assert not any("4 ranks" in note for note in beside_estimate(trace, "llama-3-8b", "h100-sxm", tensor_parallel=4).notes)


# several traces


def test_two_traces_say_what_changed(tmp_path):
    very_long = f"void at::native::gemm<{'float, ' * 500}>"

    def of(name, gemm_us):
        events = []
        for i in range(3):
            events += [annotation("step[DECODE bs=2]", 1000 * i, 10), launch(1000 * i + 1, i)]
            events += [kernel(very_long, 1000 * i + 20, gemm_us, i), kernel("rms_norm", 1000 * i + 20 + gemm_us, 10, i)]
        return read_trace(saved(tmp_path / name, events))

    result = compare_traces(of("a.json", 100), of("b.json", 60))
    (step,) = result.of("step")
    assert step.saved_s == pytest.approx(40e-6)
    assert [(change.name, round(change.saved_s * 1e6)) for change in result.of("class")] == [("matrices", 40), ("norm", 0)]
    assert "120 µs" not in str(result)
    assert f"{very_long[:39]}…{very_long[-20:]}: 100 µs → 60 µs, 40 µs saved" in str(result)
    assert str(compare_traces(tmp_path / "b.json", str(tmp_path / "a.json"))).count("40 µs lost") == 3  # the step, the class, the name
    with pytest.raises(InvalidValueError, match="no steps"):
        compare_traces(of("a.json", 100), read_trace(EAGER))


def test_collectives_are_split_into_waiting_and_moving(tmp_path):
    # rank 1 comes 30 µs late to the first all-reduce, rank 0 10 µs late to the second; moving takes 20 µs
    times = {0: [50, 20], 1: [20, 30]}
    paths = []
    for rank, durations in times.items():
        events = [kernel("gemm", 0, 40)]
        events += [kernel("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 100 * (i + 1), time) for i, time in enumerate(durations)]
        paths.append(saved(tmp_path / f"{rank}.json", events, distributedInfo={"rank": rank, "world_size": 2}))
    result = compare_ranks(paths)
    assert [rank.waiting_s for rank in result.ranks] == [pytest.approx(30e-6), pytest.approx(10e-6)]
    assert [rank.last for rank in result.ranks] == [1, 1]
    assert result.moving_s == pytest.approx(40e-6)
    assert result.skew_s == pytest.approx(20e-6)
    assert result.slowest == 1
    assert [rank.others_s for rank in result.ranks] == [pytest.approx(40e-6)] * 2


def test_ranks_that_did_other_things_are_refused(tmp_path):
    def of(rank, count):
        events = [kernel("ncclDevKernel_AllReduce", 10 * i, 5) for i in range(count)] or [kernel("gemm", 0, 1)]
        return saved(tmp_path / f"{rank}-{count}.json", events, distributedInfo={"rank": rank, "world_size": 2})

    for traces, match in [
        ([of(0, 2)], "one trace was given; ranks are compared from two on"),
        ([], "no traces were given"),
        ([of(0, 2), of(0, 1)], "same rank"),
        ([of(0, 2), of(1, 1)], "same steps"),
        ([of(0, 0), of(1, 0)], "no collective"),
    ]:
        with pytest.raises(InvalidValueError, match=match):
            compare_ranks(traces)


def test_groups_of_ranks_are_apart(tmp_path):
    def of(rank, group, time):
        extra = {"Collective name": "allreduce", "Process Group Name": group}
        return saved(tmp_path / f"{rank}.json", [kernel("nccl", 0, time, **extra)], distributedInfo={"rank": rank, "world_size": 4})

    result = compare_ranks([of(0, "a", 10), of(1, "a", 30), of(2, "b", 5), of(3, "b", 7)])
    assert [round(rank.waiting_s * 1e6) for rank in result.ranks] == [0, 20, 0, 2]
    assert result.names[0].name == "allreduce"
    assert result.names[0].count == 2


# files


def test_a_trace_that_a_live_profile_kept_gives_the_same_profile(tmp_path):
    torch = pytest.importorskip("torch")
    a, b = torch.ones(64, 256), torch.ones(256, 128)
    live = profile_torch(lambda: torch.relu(a @ b), phase="decode", trace=tmp_path / "t.json")
    read = read_trace(tmp_path / "t.json").profile
    assert read.flops == live.flops == 2 * 64 * 256 * 128
    assert read.time_s == pytest.approx(live.time_s)
    assert read.phases == live.phases
    assert any("on the host" in note for note in read_trace(tmp_path / "t.json").notes)
    with pytest.raises(InvalidValueError, match="compare_profiles"):
        compare_traces(read_trace(tmp_path / "t.json"), read_trace(EAGER))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"   \n", "is empty"),
        (b"hello", "no JSON: it starts with 'hello'"),
        (b'{"a": 1, "b": [1, 2]}', "has no traceEvents, but a, b"),
        (b'{"traceEvents": {}}', "has no traceEvents"),
        (b'{"traceEvents": []}', "no kernels and no operators"),
        (b'{"traceEvents": [{"ph": "X", "cat": "x", "ts": 1, "dur": 2, "name": "n"}]}', "no kernels and no operators"),
        (b'{"traceEvents": [1, 2]}', "breaks off at '1, 2]"),
        (b'{"traceEvents": ', "has no traceEvents"),
        (b"[]", "no kernels and no operators"),
        (b'{"request_rate": Infinity, "completed": 3}', "has no traceEvents, but request_rate, completed"),
    ],
)
def test_what_is_no_trace_is_refused_in_a_sentence(tmp_path, content, match):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(InvalidValueError, match=match) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidValueError, match="No such file"):
        read_trace(tmp_path / "absent.json")


def test_tokens_that_cannot_be_are_refused():
    with pytest.raises(InvalidValueError, match="context"):
        read_trace(DECODE, context=-1)
    with pytest.raises(InvalidValueError, match="what read_trace returned"):
        beside_estimate("trace.json", "8B", "h100-sxm")


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_ends_in_the_middle_is_read_as_far_as_it_goes(tmp_path, packed):
    events = [kernel("gemm", 10 * i, 5) for i in range(100)]
    text = json.dumps({"traceEvents": events}).encode()
    path = tmp_path / "t.json"
    path.write_bytes(gzip.compress(text)[:-40] if packed else text[: len(text) // 2])
    trace = read_trace(path)
    assert 0 < sum(kernel.count for kernel in trace.kernels) < 100 + packed
    assert "ends in the middle" in trace.notes[0]


@pytest.mark.parametrize("cut", [False, True])
def test_a_trace_of_a_gpu_without_its_kernels_is_not_taken_for_one_of_the_host(tmp_path, cut):
    shapes = {"External id": 1, "Input Dims": [[64, 64], [64, 64]], "Input type": ["float", "float"]}
    product = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 0, "dur": 9, "args": shapes}
    path = saved(
        tmp_path / "t.json", [product, launch(1, 1), *[kernel("gemm", 20, 9, 1)] * cut], deviceProperties=[{"name": "NVIDIA H100"}]
    )
    if cut:
        path.write_bytes(path.read_bytes()[:-40])
    trace = read_trace(path)
    assert trace.profile is None
    assert str(trace).startswith("trace of NVIDIA H100: no kernels\n")
    assert any(
        note.startswith(f"no kernels: {'the file ends before those' if cut else 'it has launches on a GPU alone'}") for note in trace.notes
    )
    assert "host" not in str(trace)


def test_unknown_words_are_answered_with_the_nearest():
    with pytest.raises(UnknownOptionError, match="read_trace has no contex: nearest: context"):
        read_trace(DECODE, contex=5)


def test_steps_of_a_file_that_ends_in_the_middle_are_marked_beside_an_estimate(tmp_path):
    events = [annotation("step[DECODE bs=2]", 0, 10), launch(1, 1), *(kernel("gemm", 20 + 9 * i, 9, 1) for i in range(999))]
    path = saved(tmp_path / "t.json", events)
    path.write_bytes(path.read_bytes()[:-9999])
    assert any("ends in the middle" in note for note in beside_estimate(read_trace(path, context=9), "llama-3-8b", "h100-sxm").notes)


def test_an_array_of_events_without_an_object_around_is_read(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([kernel("gemm", 0, 5)]))
    assert read_trace(path).busy_s == pytest.approx(5e-6)


def test_events_without_what_is_needed_are_passed_over(tmp_path):
    odd = [
        {},
        {"cat": "kernel"},
        {"cat": ["kernel"], "ts": 1, "dur": 2},
        {"cat": "kernel", "ts": "1", "dur": 2},
        {"cat": "kernel", "ts": 3, "dur": 4, "args": 7},
    ]
    trace = read_trace(saved(tmp_path / "t.json", [*odd, kernel("gemm", 0, 5)]))
    assert sum(kernel.count for kernel in trace.kernels) == 2


def test_braces_in_names_of_the_python_stack_do_not_end_an_event(tmp_path):
    stack = {"ph": "X", "cat": "python_function", "name": 'f"{x}" }, {', "pid": 1, "tid": 1, "ts": 0, "dur": 9, "args": {"Python id": 1}}
    trace = read_trace(saved(tmp_path / "t.json", [stack, kernel("gemm", 0, 5), stack, kernel("gemm", 10, 5)]))
    assert trace.kernels_s == pytest.approx(10e-6)


@pytest.mark.slow
def test_a_trace_of_300_megabytes_takes_half_a_minute_and_300_megabytes_at_most(tmp_path):
    with gzip.open(EAGER, "rt") as file:
        text = file.read()
    start = text.index("[", text.index('"traceEvents"'))
    end = json.JSONDecoder().raw_decode(text, start)[1]
    # what the file had before it was cut: as many events of the Python stack and arrows from launches to kernels
    stack = '{"ph": "X", "cat": "python_function", "name": "torch/nn/modules/module.py(1747): _wrapped_call_impl", "pid": 1, "tid": 1, '
    stack += '"ts": 1428625731516.983, "dur": 49779.532, "args": {"Python parent id": 7, "Python id": 8, "Ev Idx": 6637}}, '
    arrow = '{"ph": "f", "id": 675771, "pid": 0, "tid": 7, "ts": 1428625731622.25, "cat": "ac2g", "name": "ac2g", "bp": "e"}, '
    path = tmp_path / "large.json"
    with path.open("w") as file:
        file.write(text[: start + 1])
        while file.tell() < 300e6:
            file.write(stack * 4262 + arrow * 3629 + text[start + 1 : end - 1] + ", ")
        file.write(text[start + 1 :])
    program = (
        "import re, resource, sys; from roofline.profile import read_trace; trace = read_trace(sys.argv[1]); "
        "most = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]; "  # ru_maxrss is also of what started it
        "print(trace.kernels_s, most, resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    )
    answer = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    path.unlink()
    kernels_s, kilobytes, seconds = map(float, answer.stdout.split())
    assert kernels_s > 1
    assert kilobytes < 300e3
    assert seconds < 30  # of a processor: other tests may run beside it
