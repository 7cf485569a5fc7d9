"""Request fields that no model's allow-list may open, each with the reason.

A field a model lets through reaches its server as the caller wrote it. Some would let the caller
read the server's files, make it fetch an address, or run code; some would make it count or generate
what was not reserved; some are the surface's own, which the gateway reads and writes itself.
"""

import re

_FILES = "it names a file of the server"
_HOSTS = "the server would fetch an address of the caller's choice"
_CODE = "the server would load or run what the caller sends"
_COUNTS = "the gateway sets it, to count what is used"
_MORE = "it multiplies what is generated beyond what was reserved"
_SURFACE = "it belongs to the request itself: the gateway reads and writes it"
_SERVER = "it steers the server's own memory, queues or traces"

_CLOSED: dict[str, str] = {
    **dict.fromkeys(
        ("lora_path", "lora_local_path", "lora_weights", "lora_config", "tokenizer",
         "allowed_local_media_path", "documents_path", "model_path"), _FILES,
    ),
    **dict.fromkeys(
        ("image_url", "image_urls", "image_data", "video_url", "video_data", "audio_url",
         "audio_data", "multi_modal_data", "media_io_kwargs", "kv_transfer_params",
         "bootstrap_host", "bootstrap_port", "bootstrap_room"), _HOSTS,
    ),
    **dict.fromkeys(
        ("logits_processors", "custom_logit_processor", "logits_processor", "prompt_embeds",
         "prompt_embedding_table", "chat_template", "chat_template_kwargs", "vllm_xargs",
         "guided_decoding_backend"), _CODE,
    ),
    **dict.fromkeys(
        ("stream_options", "include_usage", "continuous_usage_stats", "return_num_input_tokens",
         "return_num_output_tokens", "exclude_input_in_output", "return_context_logits",
         "return_generation_logits", "sampling_param_max_tokens", "sampling_param_n"), _COUNTS,
    ),
    **dict.fromkeys(
        ("best_of", "beam_width", "use_beam_search", "num_return_sequences",
         "sampling_param_best_of", "sampling_param_use_beam_search"), _MORE,
    ),
    **dict.fromkeys(
        ("model", "messages", "prompt", "suffix", "echo", "input", "stream", "streaming", "n",
         "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "logprobs",
         "top_logprobs", "encoding_format", "text_input", "prompt_token_ids",
         "input_ids", "sampling_parameters", "parameters", "id", "inputs", "outputs", "model_name",
         "model_version", "request_id", "embedding_request"), _SURFACE,
    ),
    **dict.fromkeys(
        ("binary_data", "binary_data_size", "binary_data_output", "sequence_id", "sequence_start",
         "sequence_end", "priority", "timeout", "classification", "data_parallel_rank",
         "session_params"), _SERVER,
    ),
}  # fmt: skip

# Names nobody has listed yet follow the same words.
_CLOSED_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r".*_(path|paths|file|files|dir|filename)"), _FILES),
    (re.compile(r".*_(url|urls|uri|uris|host|hosts|endpoint)"), _HOSTS),
    (re.compile(r"(shared_memory|triton|xla|cuda)_.*"), _SERVER),
)


def why_closed(name: str) -> str | None:
    """The reason a request field can never be forwarded as it is; None: a model may allow it."""
    lowered = name.lower()
    if reason := _CLOSED.get(lowered):
        return reason
    return next((reason for form, reason in _CLOSED_FORMS if form.fullmatch(lowered)), None)
