"""Configuration keys that never change the cost of a step: rotary, tokenizer, generation, training, bookkeeping."""

import re

_FREE = {
    "bookkeeping": """
        architectures auto_map model_type transformers_version _name_or_path use_cache torchscript return_dict name_or_path
        id2label label2id problem_type task_specific_params finetuning_task tokenizer_class prefix ignore_index language
        output_attentions output_hidden_states output_router_logits output_scores pruned_heads chunk_size_feed_forward is_decoder
        is_encoder_decoder tie_encoder_decoder use_bfloat16 tf_legacy_loss add_cross_attention cross_attention_hidden_size
        gradient_checkpointing remove_invalid_values keys_to_ignore_at_inference cache_implementation unsloth_fixed unsloth_version
        attn_implementation _attn_implementation _attn_implementation_autoset _experts_implementation
    """,
    "rotary and other position encodings without weights": """
        rope_theta rope_scaling rope_parameters rope_type rope_interleave rope_local_base_freq partial_rotary_factor rotary_pct
        rotary_emb_base rotary_dim swa_rope_theta compress_rope_theta indexer_rope_interleave rope_interleaved use_mrope no_rope_layers
        no_rope_layer_interval original_max_position_embeddings initial_context_length attn_rotary_emb offset_alibi
        max_sequence_length model_max_length
    """,
    "scales, clips, constants of activations and norms": """
        rms_norm_eps layer_norm_eps layer_norm_epsilon norm_epsilon norm_eps layernorm_epsilon initializer_range
        attn_logit_softcapping final_logit_softcapping logits_soft_cap logit_scale query_pre_attn_scalar attention_multiplier
        embedding_multiplier residual_multiplier logits_scaling scale_attn_weights attention_softmax_in_fp32
        scale_attention_softmax_in_fp32 scale_attn_by_inverse_layer_idx reorder_and_upcast_attn residual_in_fp32
        rescale_prenorm_residual hidden_act hidden_activation activation_function swiglu_limit swiglu_alpha
        apply_residual_connection_post_layernorm slow_but_exact summary_activation summary_first_dropout summary_proj_to_labels
        summary_type summary_use_proj
    """,
    "routing decisions and training losses: which experts, not how many": """
        norm_topk_prob routed_scaling_factor scoring_func topk_method n_group topk_group num_expert_group use_grouped_topk
        router_aux_loss_coef aux_loss_alpha seq_aux router_jitter_noise input_jitter_noise moe_renormalize moe_norm_min
        moe_router_activation_func moe_router_scaling_factor moe_router_dtype router_z_loss_coef
    """,
    "training and parallelism of the trainer": """
        pretraining_tp ep_size dropout classifier_dropout
    """,
}

FREE_KEYS = frozenset(key for keys in _FREE.values() for key in keys.split())
"""Keys that are free in every family."""

FREE_PATTERN = re.compile(
    r"(_token_ids?|_token_index|_tokens?_ids|_placeholder|_dropout(_prob)?|_pdrop|^(vision|audio|image|video|projector|multimodal|mm)_.*)$"
    r"|^(bos|eos|pad|sep|unk|decoder_start)_|^(min|max)_length$|^(do_sample|early_stopping|num_beams|temperature|top_k|top_p|typical_p)$"
    r"|^(length|repetition|diversity|exponential_decay_length)_penalty$|^(num_beam_groups|num_return_sequences|no_repeat_ngram_size|encoder_no_repeat_ngram_size)$"
    r"|^(bad_words_ids|suppress_tokens|begin_suppress_tokens|return_dict_in_generate|dropout|resid_pdrop)$"
)
"""Names of keys that belong to the tokenizer, the generation settings, dropout, or a part that is not the text model."""

MEANINGS: dict[str, str] = {
    "expert": "experts, their number or their size",
    "moe": "a mixture of experts",
    "router": "a router over experts",
    "window": "a window on attention",
    "sparse": "sparse attention",
    "index": "an indexer that selects positions",
    "lora": "a low-rank projection",
    "adapter": "adapters with weights of their own",
    "mamba": "state-space layers",
    "ssm": "state-space layers",
    "conv": "a convolution",
    "linear": "linear attention",
    "state": "recurrent state",
    "mtp": "multi-token-prediction layers",
    "nextn": "multi-token-prediction layers",
    "head": "other heads or head sizes",
    "dim": "another width",
    "size": "another width",
    "layer": "another layer pattern",
    "norm": "further norms",
    "bias": "further biases",
    "gate": "a gate with weights of its own",
    "attn": "another attention",
    "attention": "another attention",
    "quant": "quantized weights",
    "share": "weights shared between layers",
}
"""What a key that is not understood might mean, by a part of its name."""
