"""What responses that are no answers mean: a table of what servers say."""

from __future__ import annotations

import json

import pytest

from rdlib.engines.server_failures import Place, judge
from rdlib.engines.server_said import read

SENT = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 512, "temperature": 0.7}
SENT |= {"seed": 1024, "top_p": 1.0, "n": 5, "top_k": 0, "reasoning_effort": "low"}


def error(message: str, **fields) -> dict:
    """An error as OpenAI's servers give it."""
    return {"error": {"message": message, **fields}}


CASES = [
    (
        "refused",
        400,
        error(
            (
                "Your request was rejected as a result of our safety system. Your prompt may contain "
                "text that is not allowed by our safety system."
            ),
            code="content_policy_violation",
        ),
    ),
    (
        "refused",
        400,
        error(
            "The prompt could not be submitted. This prompt contains sensitive words that violate "
            "Google's Responsible AI practices."
        ),
    ),
    ("refused", 400, error("litellm.ContentPolicyViolationError: AzureException")),
    (
        "refused",
        400,
        error(
            "litellm.ContextWindowExceededError: This model's maximum prompt length is 131072 but "
            "the request contains 200000 tokens."
        ),
    ),
    (
        "refused",
        400,
        error("Input token count exceeds the maximum number of tokens allowed (1048576).", status="INVALID_ARGUMENT"),
    ),
    (
        "refused",
        400,
        error(
            "Please reduce the length of the messages or completion.", code="context_length_exceeded", param="messages"
        ),
    ),
    (
        "refused",
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 400,
                "n_ctx": 256,
            }
        },
    ),
    (
        "refused",
        500,
        error(
            "the request exceeds the available context size. try increasing the context size or enable context shift"
        ),
    ),
    (
        "refused",
        400,
        {
            "object": "error",
            "message": (
                "This model's maximum context length is 4096 tokens. However, you requested 4300 tokens "
                "(3788 in the messages, 512 in the completion). Please reduce the length"
            ),
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    (
        "hopeless",
        400,
        {
            "object": "error",
            "message": (
                "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context "
                "length is 256 tokens and your request has 20 input tokens"
            ),
            "code": 400,
            "param": "max_tokens",
        },
    ),
    (
        "refused",
        400,
        {
            "object": "error",
            "message": (
                "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context "
                "length is 1024 tokens and your request has 900 input tokens (512 > 1024 - 900)."
            ),
            "code": 400,
            "param": "max_tokens",
        },
    ),
    ("hopeless", 400, error("Invalid max_tokens value, the valid range of max_tokens is [1, 256]")),
    (
        "hopeless",
        400,
        error(
            "`max_tokens` must be less than or equal to `256`, the maximum value for `max_tokens` is "
            "less than the `context_window` for this model"
        ),
    ),
    ("hopeless", 400, error("Range of max_tokens should be [1, 256]", code="invalid_parameter_error")),
    (
        "refused",
        422,
        {
            "error": (
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 "
                "`inputs` tokens and 512 `max_new_tokens`"
            ),
            "error_type": "validation",
        },
    ),
    (
        "refused",
        400,
        error(
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease "
            "input length or `max_tokens` and try again"
        ),
    ),
    (
        "refused",
        400,
        {
            "error": {
                "code": "1301",
                "message": "系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语",
            }
        },
    ),
    ("hopeless", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
    ("limited", 429, {"error": {"code": "1302", "message": "您当前使用该API的并发数过高，请降低并发"}}),
    (
        "limited",
        429,
        error(
            ("Your account org-xx request reached max organization concurrency: 1, please try again after 1 seconds"),
            type="rate_limit_reached_error",
        ),
    ),
    ("hopeless", 401, error("Incorrect API key provided: sk-abc", code="invalid_api_key")),
    (
        "hopeless",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai.",
        },
    ),
    ("hopeless", 403, error("You have insufficient permissions for this operation. Missing scopes: model.request")),
    ("hopeless", 403, error("Project `proj_x` does not have access to model `gpt-5`", code="model_not_found")),
    (
        "hopeless",
        404,
        error("The model `gpt-5` does not exist or you do not have access to it.", code="model_not_found"),
    ),
    (
        "hopeless",
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}},
    ),
    ("hopeless", 404, {"error": 'model "llama9" not found, try pulling it first'}),
    (
        "hopeless",
        400,
        error(
            "The model `llama-3.1-70b` has been decommissioned and is no longer supported.", code="model_decommissioned"
        ),
    ),
    (
        "hopeless",
        400,
        error(
            "/chat/completions: Invalid model name passed in model=foo. Call `/v1/models` to view "
            "available models for your key."
        ),
    ),
    ("hopeless", 400, error("Model Not Exist")),
    (
        "hopeless",
        400,
        error("ExceededBudget: User budget exceeded. Current cost: 1, Max budget: 1", type="budget_exceeded"),
    ),
    (
        "hopeless",
        402,
        error(
            (
                "This request requires more credits, or fewer max_tokens. You requested up to 512 "
                "tokens, but can only afford 76."
            ),
            code=402,
        ),
    ),
    (
        "hopeless",
        403,
        error("Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys", code=403),
    ),
    ("hopeless", 400, error("Access denied, please make sure your account is in good standing.", code="Arrearage")),
    ("hopeless", 403, error("Your account has been deactivated.")),
    ("passing", 503, error("Loading model", type="unavailable_error", code=503)),
    ("passing", 502, b"<html><head><title>502 Bad Gateway</title></head></html>"),
    ("passing", 524, b"error code: 524"),
    ("passing", 500, error("The server had an error while processing your request. Sorry about that!")),
    (
        "passing",
        424,
        {"error": "Request failed during generation: Server error: CUDA out of memory", "error_type": "generation"},
    ),
    ("limited", 503, error("The model is overloaded. Please try again later.", status="UNAVAILABLE")),
    ("limited", 503, error("That model is currently overloaded with other requests.")),
    ("limited", 429, b""),
    ("limited", 429, {"error": "Model is overloaded", "error_type": "overloaded"}),
    ("limited", 429, error("Resource has been exhausted (e.g. check quota).", status="RESOURCE_EXHAUSTED")),
    (
        "limited",
        400,
        {"message": "Too many requests, please wait before trying again.", "__type": "ThrottlingException"},
    ),
    (
        "parameter",
        400,
        error("Unrecognized request argument supplied: top_k", type="invalid_request_error", param=None),
    ),
    ("parameter", 400, error("property 'top_k' is unsupported")),
    (
        "parameter",
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
    ),
    (
        "parameter",
        400,
        {
            "object": "error",
            "message": (
                "[{'type': 'extra_forbidden', 'loc': ('body', 'top_k'), 'msg': 'Extra inputs are not "
                "permitted', 'input': 0}]"
            ),
            "type": "BadRequestError",
        },
    ),
    ("parameter", 400, error("seed is not supported for this model")),
    (
        "parameter",
        400,
        error("Unknown parameter: 'reasoning_effort'.", param="reasoning_effort", code="unknown_parameter"),
    ),
    (
        "parameter",
        400,
        error(
            "Unsupported value: 'reasoning_effort' does not support 'low' with this model.", param="reasoning_effort"
        ),
    ),
    ("parameter", 400, error("n > 1 is not currently supported")),
    ("parameter", 400, error("Only one candidate can be specified")),
    ("parameter", 400, error("parameter n must be 1 for this model")),
    ("parameter", 400, error("best_of must be greater than or equal to n")),
    ("parameter", 422, {"error": "Input validation error: `seed` must be strictly positive"}),
    ("parameter", 400, error('"temperature" is not supported with reasoning models')),
    ("parameter", 400, error("temperature must be 1 when thinking is enabled")),
    ("parameter", 400, error("`temperature` may only be set to 1 when thinking is enabled.")),
    ("parameter", 400, error("`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.")),
    ("refused", 400, error("Bad question: the temperature in Kelvin is not given", param="messages")),
    ("refused", 400, error("Failed to parse messages")),
    ("doubtful", 403, b"<html><title>Attention Required! | Cloudflare</title></html>"),
    ("doubtful", 403, b""),
    ("doubtful", 404, b""),
    ("doubtful", 404, b"404 page not found"),
    ("doubtful", 405, {"detail": "Method Not Allowed"}),
    ("doubtful", 404, error("Invalid URL (POST /chat/completions)")),
    ("doubtful", 404, error("Resource not found", code="404")),
    ("doubtful", 404, error("No allowed providers are available for the selected model.")),
    ("hopeless", 400, b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"),
    ("hopeless", 407, b"Proxy Authentication Required"),
    ("passing", 200, error("Internal Server Error", code=500)),
    ("passing", 200, {"choices": []}),
    ("refused", 200, error("content flagged by moderation", code=403)),
    ("hopeless", 200, error("No auth credentials found", code=401)),
    ("limited", 200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None}),
    ("hopeless", 200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None}),
    ("hopeless", 200, {"detail": "Unexpected endpoint or method. (POST /chat/completions). Returning 200 anyway"}),
    ("refused", 451, error("Unavailable For Legal Reasons")),
    ("passing", 409, error("conflict")),
    ("passing", 500, error("context deadline exceeded")),
    ("passing", 504, error("upstream request timeout: the request took too long")),
    ("passing", 500, error("Error rendering prompt template")),
    ("passing", 500, error("CUDA error: an illegal memory access was encountered")),
    ("passing", 503, error("moderation service temporarily unavailable")),
]


@pytest.mark.parametrize(("kind", "status", "body"), CASES)
def test_what_a_response_means(kind, status, body):
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    said = read(status, {}, content)
    outcome = judge(said, SENT)
    assert outcome.kind == kind, (outcome, said.words)
    if kind in ("hopeless", "doubtful"):
        sentence = Place("http://h/v1/chat/completions", "m", "set KEY").hopeless(outcome.why, said, 512)
        assert said.words.rstrip(".") in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Unrecognized request argument supplied: top_k", ("top_k",)),
        ("n > 1 is not currently supported", ("n",)),
        ("Input validation error: `seed` must be strictly positive", ("seed",)),
        ("does not support parameters: ['n', 'seed']", ("seed", "n")),
        ("`temperature` may only be set to 1 when thinking is enabled.", ("temperature",)),
        ("`temperature` and `top_p` cannot both be specified", ("top_p",)),
        ("'seed' and 'n' are mutually exclusive", ("seed",)),
        ("Unsupported value: 'reasoning_effort' does not support 'low'", ("reasoning_effort",)),
    ],
)
def test_which_parameters_a_refusal_blames(text, names):
    outcome = judge(read(400, {}, json.dumps({"error": text}).encode()), SENT)
    assert (outcome.kind, outcome.names) == ("parameter", names)
