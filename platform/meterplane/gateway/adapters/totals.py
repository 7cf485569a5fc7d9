"""Responses of one sequence that are either additions or totals so far, told apart by evidence.

Used for engines whose deployments differ and do not say how (`tensorrtllm`). Pure.

Text. A response that repeats all that came before and goes on is what totals look like; by chance
additions do it too ("1", "10"). So it is believed after `REPEATS` such responses, or one that
repeats `REPEATED_CHARS` characters; until then what it brings is held back. A response that does
not repeat what came before proves additions.

Counts. Totals rise with every response that brings new text and never fall; the first that does not
proves additions, and then all of them are added up. Where an answer is so short that both readings
hold, the smaller one is billed.
"""

REPEATS = 3
REPEATED_CHARS = 32
SAME_MAX = 3  # totals without news: a token that is half a letter. More of the same are additions
UNDECIDED_CHARS = 4  # an answer that ends undecided: what repeated this much was a total

# A prompt of fewer tokens is repeated by models too; and prompts have tokens that are no text.
ECHOED_TOKENS_MIN = 4
ECHO_SPARE = 2


class Sequence:
    """One sequence. `tokens` is the smaller reading until there is evidence."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._totals: bool | None = None  # of the text; None: not known yet
        self._last = ""
        self._added = ""  # what additions would have made of it so far, while that is open
        self._shown = 0
        self._echoed = 0  # characters of the prompt in front
        self._repeats = 0
        self._same = 0
        self._counts_sum = 0
        self._counts_last = 0
        self._counts_rise = True  # with every text that was not the same again
        self._counts_rise_always = True  # with every text
        self._counted_prompt = 0  # tokens of it in every total
        self._begun = False

    @property
    def tokens(self) -> int:
        """Output tokens of the sequence so far."""
        rise = self._counts_rise_always if self._totals is False else self._counts_rise
        return self._counts_last if rise else self._counts_sum

    def add(self, text: str, count: int, prompt_tokens: int) -> str:
        """A response; what of it is new for the caller."""
        if not self._begun:
            self._begun = True
            count = self._without_prompt(text, count, prompt_tokens)
        elif count >= self._counted_prompt + self._counts_last:
            count -= self._counted_prompt  # a total that has the prompt in it, too
        self._count(text, count)
        if self._totals is False:
            return text
        if self._totals:
            return self._rest_of(text)
        return self._undecided(text)

    def finish(self) -> str:
        """What was held back; the reading is final afterwards."""
        if self._totals is None:
            self._totals = self._repeats > 0 and len(self._last) >= UNDECIDED_CHARS
            return self._rest_of(self._last) if self._totals else self._additions()
        return ""

    def _without_prompt(self, text: str, count: int, prompt_tokens: int) -> int:
        """See that a prompt in front is not shown, and the count without it."""
        if prompt_tokens < ECHOED_TOKENS_MIN or not text.startswith(self._prompt):
            return count
        if count + ECHO_SPARE < prompt_tokens:
            self._echoed = len(self._prompt)
        elif count > prompt_tokens:
            self._echoed = len(self._prompt)
            self._counted_prompt = prompt_tokens
            return count - prompt_tokens
        return count

    def _count(self, text: str, count: int) -> None:
        raised = count > self._counts_last
        fell = count < self._counts_last
        if fell or (text and not raised):
            self._counts_rise_always = False
        if fell or (text and text != self._last and not raised):
            self._counts_rise = False
        self._counts_sum += count
        self._counts_last = count

    def _undecided(self, text: str) -> str:
        last = self._last
        if not last:
            self._last = text
            self._added = text[self._echoed :]
            self._shown = len(self._added)
            return self._added
        self._last = text
        self._added += text
        if not text.startswith(last):
            self._totals = False
            return self._additions()
        if text == last:
            self._same += 1
            if self._same > SAME_MAX:
                self._totals = False
                return self._additions()
            return ""
        self._repeats += 1
        if self._repeats < REPEATS and len(last) < REPEATED_CHARS:
            return ""
        self._totals = True
        return self._rest_of(text)

    def _additions(self) -> str:
        new, self._added = self._added[self._shown :], ""
        return new

    def _rest_of(self, total: str) -> str:
        new = total[self._echoed + self._shown :]
        self._shown += len(new)
        self._last = total
        return new
