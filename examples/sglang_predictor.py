"""Step times for SGLang's simulator (tools/sglang-simulator in github.com/sgl-project/sglang): its scheduler and cache, our seconds.

`write_model` makes the file that the simulator's predictor "ml" loads, so nothing of the simulator is changed. `RooflineTimePredictor` is a
predictor class of its own, for programs that construct the simulator's parts themselves.
"""

from sglang_simulator.time_predictor import InferTimePredictor

from roofline import Deployment, StepTime
from roofline.serving import Load, compile_steps, rules_of

FEATURES = [  # what the predictor "ml" knows of a batch, in this order
    *("batch_size", "sum_extend", "max_extend", "min_extend", "sum_past", "max_past", "min_past"),
    *("sum_extend_x_past", "sum_extend_squared", "sum_past_squared", "sum_attn_flops", "sum_extend_x_max_past"),
    *("log1p_sum_past", "log1p_sum_attn_flops", "batch_size_x_sum_extend", "max_past_minus_min_past", "is_decode", "is_prefill"),
]


def steps_of(deployment, **limits):
    """Return a function that looks up the seconds of a step, up to the limits of SGLang's profile or those given."""
    return compile_steps(StepTime(deployment), rules_of(deployment, engine="sglang", **limits))


class RooflineTimePredictor(InferTimePredictor):
    """Seconds of a batch of requests, each with `extend_length` new tokens after `past_kv_length` in the cache."""

    def __init__(self, model, hw, config, deployment, **limits):
        super().__init__(model, hw, config)
        self.seconds = steps_of(deployment, **limits)

    def predict_infer_time(self, batch):
        sizes = [(one.extend_length, one.past_kv_length) for one in batch.reqs]
        decodes = [past for new, past in sizes if new == 1 and past]
        prompts = [(new, past) for new, past in sizes if new > 1 or not past]
        pairs = sum(new * past + new * (new + 1) // 2 for new, past in prompts)
        # whether a chunk ends its prompt is not said; each is taken to, which is one more row of logits
        return self.seconds(Load(len(decodes), sum(decodes), len(prompts), sum(new for new, _ in prompts), pairs, len(prompts)))


class StepModel:
    """What the predictor "ml" calls: `predict` of rows of FEATURES returns seconds."""

    def __init__(self, deployment, **limits):
        self.deployment, self.limits = deployment, limits
        self.seconds = steps_of(deployment, **limits)

    def __reduce__(self):  # tables are compiled again where the file is loaded
        return _step_model, (self.deployment, self.limits)

    def predict(self, rows):
        return [self.seconds(self._load(dict(zip(FEATURES, row, strict=True)))) for row in rows]

    @staticmethod
    def _load(row):
        if row["is_decode"]:
            return Load(int(row["batch_size"]), int(row["sum_past"]))
        pairs = row["sum_extend_x_past"] + (row["sum_extend_squared"] + row["sum_extend"]) / 2
        return Load(0, 0, int(row["batch_size"]), int(row["sum_extend"]), int(pairs), int(row["batch_size"]))


def _step_model(deployment, limits):
    return StepModel(deployment, **limits)


def write_model(path, deployment, **limits):
    """Write what `"predictor": {"name": "ml", "database_path": path}` of the simulator's configuration loads."""
    import joblib  # the simulator needs it too

    joblib.dump({"model": StepModel(deployment, **limits), "features": FEATURES}, path)


if __name__ == "__main__":
    write_model("roofline.pkl", Deployment("llama-3.1-8b", "h100-sxm"))
