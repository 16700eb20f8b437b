"""The parameters of a request: which are sent, which a refusal blames, and what was learnt of a server that way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rdlib.engines.asking import Reply, Settings, messages_of
from rdlib.engines.generation import Request
from rdlib.engines.server_said import Said, any_of
from rdlib.settings import Model

# What leaves the model's distribution as it is, by the names that each server has for it. Servers apply defaults of
# their own, or of the model's, to what is not sent: llama.cpp's are top_k 40 and min_p 0.05.
_LLAMA = {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
_LLAMA |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
_VLLM = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
NEUTRAL: dict[str, dict[str, float]] = {
    "llama.cpp": _LLAMA,
    "llama-cpp-python": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
    "vLLM": _VLLM,
    "SGLang": _VLLM,
    "Aphrodite": _VLLM,
    "LMDeploy": {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
    "TabbyAPI": {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
    "KoboldCpp": {"top_k": 0, "min_p": 0.0, "rep_pen": 1.0},
}
OWNERS = {
    **{"llamacpp": "llama.cpp", "llama.cpp": "llama.cpp", "vllm": "vLLM", "sglang": "SGLang", "lmdeploy": "LMDeploy"},
    **{"library": "Ollama", "ollama": "Ollama", "me": "llama-cpp-python", "pygmalionai": "Aphrodite"},
    **{"aphrodite": "Aphrodite", "tabbyapi": "TabbyAPI", "koboldcpp": "KoboldCpp"},
}

_REFUSED = any_of(
    r"(un|not |n[o']t )(\w+ )?support|unknown|unrecogni[sz]ed|unexpected|forbidden",
    r"not (permitted|allowed|enabled|implemented|available)",
    r"extra (inputs|fields)|cannot find|can ?not (both )?be (used|combined|specified|set)|invalid|deprecated",
    r"additional propert|must be|must not|should be|only|at most|less than|greater than|no longer|exclusive|drop",
    r"does not (accept|take|allow|exist)|(isn't|is not) (a )?(valid|accepted|recogni[sz]ed)|instead|too (large|many)",
    r"disabled|ignored|range|does not match|remove",
)
_NAMING = "support|unknown|invalid|unexpected|parameter|argument|field|unrecogni|option|unsupported|extra|n't"
_CHOICES = any_of(
    r"\bn ?(value|parameter|=|==|>|>=|<|<=|must|should)|parameter:? n\b|one (completion )?choice",
    r"single (choice|complet)|multiple (choices|completions|candidates)|(one|1) candidate|candidate_?count",
    r"more than one (choice|completion)|number of (choices|completions|generations|samples|candidates)",
    r"num_(generations|completions)|best_of",
)
# Words about 'n' in quotes that can only be about the parameter.
_PARAMETER_N = any_of(
    r"[\"'`]n[\"'`].{0,40}(support|at most|less than|between|number must|value must|only (1|one)\b|[<>]|not permitted)",
    r"(unsupported|unknown|unrecogni[sz]ed|invalid|extra|unexpected)"
    r"( (parameter|value|argument|field|key|name|for|of))*:? [\"'`]n[\"'`]",
)
_LIMIT = re.compile(
    "(?:"
    + any_of(
        r"at most|maximum(?: of| is| value(?: is)?| allowed(?: is)?)?|max(?: is)?:?|up to|<=|≤|no more than|1 to",
        r"(?:less|lower) than or equal to|between 1 and|1 ?[-–] ?|not exceed|limit(?: is| of)?|\[ ?1 ?, ?",
    ).pattern
    + r")\s*[`'\"]?(\d+)"
)
_TOGETHER = any_of(
    r"both|together|exclusive|combin|simultaneous|same time|along ?with|when|with seed|and seed|with n\b"
)
ORDER = ("top_p", "seed", "n", "max_tokens", "max_completion_tokens", "stop", "temperature")


def blamed(said: Said, sent: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """The parameters that a refusal is about, of those that were sent, and whether there is no doubt of it.

    Of parameters that exclude each other the ones that change nothing are blamed: a top_p of 1, the seed.
    """
    ours = [name for name in (*ORDER, *sent) if name in sent and name not in ("model", "messages")]
    ours = list(dict.fromkeys(ours))
    explicit = [name for name in ours if name in said.params or any(p.endswith(f".{name}") for p in said.params)]
    if (
        said.params
        and not explicit
        and any(p.split(".")[0].split("[")[0] in ("messages", "model") for p in said.params)
    ):
        return (), False
    quoted = [name for name in ours if _quoted(said.text, name)] if _REFUSED.search(said.text) else []
    of_choices = _PARAMETER_N.search(said.text) or (_CHOICES.search(said.text) and _REFUSED.search(said.text))
    choices = ["n"] if "n" in sent and of_choices else []
    weak = [name for name in ours if len(name) == 1 and re.search(rf"[\"'`\\]{name}[\"'`\\]", said.text)]
    found = list(dict.fromkeys([*explicit, *quoted, *choices, *weak]))
    found = [name for name in ours if name in found]
    sure = bool(explicit or quoted or choices)
    if "seed" in found and "n" in found and _TOGETHER.search(said.text) and "parameters: [" not in said.text:
        found.remove("n")
    if "top_p" in found and "temperature" in found and sent["top_p"] == 1.0:
        found.remove("temperature")
    if "max_tokens" in found and "max_completion_tokens" in sent:
        found.remove("max_tokens")
    return tuple(found), sure


def _quoted(text: str, name: str) -> bool:
    """Whether a refusal names a parameter: in quotes, or, where it is no word of English, at all."""
    if len(name) > 1 and re.search(rf"[\"'`\\]\s*{name}\s*[\"'`\\=]", text):
        return True
    if "_" in name:
        return bool(re.search(rf"(?<![\w.]){name}(?!\w)", text))
    before = rf"(?:{_NAMING})\w*:?\s+(?:the )?(?:(?:parameter|argument|field|value|option|key)s?:?\s+)?{name}\b"
    behind = rf"(?<![\w.]){name}\b(?:\s*[=:]|\s+(?:must|is|are|not|should|can|does|has|value|parameter|field|only|arg))"
    return len(name) > 1 and bool(re.search(f"{before}|{behind}", text))


def most_choices(said: Said, asked: int) -> int:
    """How many choices at once a refusal allows; 1 where it does not tell."""
    limits = [int(number) for number in re.findall(_LIMIT, said.text.replace("<= value <=", "<=")) if len(number) < 4]
    fitting = [number for number in limits if 1 < number < asked]
    return max(fitting) if fitting and not re.search(r"only (one|1|n ?= ?1)", said.text) else 1


@dataclass
class Learnt:
    """What a server showed of itself; `known` of an earlier run is taken in as far as it is well formed."""

    unsupported: set[str] = field(default_factory=set)
    most_choices: int | None = None
    server: str | None = None
    temperatures: set[float | None] = field(default_factory=set)
    weak: dict[str, int] = field(default_factory=dict)
    fewer: int = 0  # answers in a row with fewer choices than were asked for
    reasonless: int = 0  # choices that did not say why they ended, before one did
    reasons: bool = False  # whether any said so
    remarks: list[str] = field(default_factory=list)

    def take(self, known: Mapping[str, Any] | None) -> Learnt:
        """Take in what `as_json` gave in an earlier run."""
        known = known if isinstance(known, Mapping) else {}
        self.unsupported |= {name for name in _list(known, "unsupported") if isinstance(name, str)}
        most = known.get("most_choices")
        self.most_choices = most if type(most) is int and most > 0 else None
        self.server = next((name for name in OWNERS.values() if name == known.get("server")), None)
        self.temperatures |= {t for t in _list(known, "temperatures") if t is None or type(t) in (int, float)}
        return self

    def as_json(self) -> dict[str, Any]:
        """What the next run may know from the start."""
        temperatures = sorted(self.temperatures, key=lambda t: (t is None, t or 0.0))
        known = {"unsupported": sorted(self.unsupported), "most_choices": self.most_choices, "server": self.server}
        return known | {"temperatures": temperatures}

    def limit_choices(self, most: int) -> None:
        """The server gives so many choices at once."""
        self.most_choices = min(most, self.most_choices or most)
        if self.most_choices == 1:
            self.unsupported.add("n")

    def confirm(self, names: tuple[str, ...], sure: bool, most: int | None) -> None:
        """A request passed without these parameters; where they were blamed vaguely, that must happen twice."""
        for name in names:
            self.weak[name] = self.weak.get(name, 0) + 1
            if sure or self.weak[name] > 1:
                if name == "n":
                    self.limit_choices(most or 1)
                else:
                    self.unsupported.add(name)

    def gave(self, choices: int, asked: int) -> None:
        """An answer had so many choices of those asked for; one of several may be missing by chance."""
        self.fewer = self.fewer + 1 if choices < asked else self.fewer if asked == 1 else 0
        if choices < asked and (choices == 1 or self.fewer > 2):
            self.limit_choices(choices)

    def saw_reasons(self, replies: Sequence[Reply | None]) -> None:
        """Note whether choices say why they ended."""
        self.reasons |= any(reply and reply.reason for reply in replies)
        self.reasonless += sum(1 for reply in replies if reply and reply.text and not reply.reason)

    @property
    def never_tells_reasons(self) -> bool:
        """Whether the server seems to have no reasons for the end of a response."""
        return not self.reasons and self.reasonless > 2

    def remark(self, sentence: str) -> None:
        """Keep a sentence for the report, once."""
        self.remarks += [sentence] if sentence not in self.remarks else []

    def recognise(self, owner: Any = None, header: str = "") -> None:
        """Take the server's name from its list of models or from its header Server."""
        named = [word for word in re.split(r"[\s,/]+", header.lower()) if len(word) > 3 and word != "library"]
        self.server = self.server or next((OWNERS[n] for n in (str(owner).lower(), *named) if n in OWNERS), None)

    def notes(self, model: Model) -> list[str]:
        """What the report says of the parameters, in plain sentences."""
        left = self.unsupported - {"n", "max_tokens"} | set(model.leave_out) - {"n"}
        left |= {"max_tokens"} & self.unsupported if "max_completion_tokens" in self.unsupported else set()
        left -= {"max_completion_tokens"}
        found = list(self.remarks)
        if left:
            applies = "its own default applies" if len(left) == 1 else "its own defaults apply"
            found.append(f"The server got no {', '.join(sorted(left))}, so {applies}.")
        if "max_tokens" in self.unsupported and "max_completion_tokens" not in self.unsupported:
            found.append("The server calls max_tokens max_completion_tokens.")
        if self.most_choices:
            few = "one sample" if self.most_choices == 1 else f"at most {self.most_choices} samples"
            found.append(f"The server gives {few} a request.")
        return [*found, self._neutral(model)]

    def _neutral(self, model: Model) -> str:
        sent = neutral(model, self)
        if sent:
            values = ", ".join(f"{name} {value:g}" for name, value in sent.items())
            return f"The server is {self.server}, and {values} were sent so that its own defaults change nothing."
        known = f"is {self.server}, which takes no" if self.server else "could not be recognised, so it got no"
        return f"The server {known} top_k, min_p or repetition penalty: its own defaults for them apply."


def _list(known: Mapping[str, Any], name: str) -> list[Any]:
    value = known.get(name)
    return value if isinstance(value, list) else []


def neutral(model: Model, learnt: Learnt) -> dict[str, float]:
    """What is sent so that a server's own defaults change nothing, by the names that it has for it."""
    known = NEUTRAL.get(learnt.server or "", {})
    return {n: v for n, v in known.items() if n not in learnt.unsupported and n not in model.request.body}


def body_of(
    model: Model,
    settings: Settings,
    request: Request,
    n: int,
    seed: int,
    learnt: Learnt,
    without: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The JSON of one call for `n` samples; `without` names what it leaves out besides what was learnt."""
    out = learnt.unsupported | without | set(model.leave_out)
    limit = "max_completion_tokens" if "max_tokens" in out - set(model.leave_out) else "max_tokens"
    body: dict[str, Any] = {"model": settings.model, "messages": messages_of(model, request)}
    if "max_completion_tokens" not in model.request.body:
        body[limit] = settings.max_tokens
    body |= {} if request.temperature is None else {"temperature": request.temperature}
    body |= {"seed": seed, "top_p": settings.top_p}
    body |= {"n": n} if n > 1 else {}
    body |= {"stop": list(settings.stop)} if settings.stop else {}
    body |= neutral(model, learnt)
    return {name: value for name, value in body.items() if name not in out} | model.request.body
