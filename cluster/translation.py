"""Single translations of a run, for people: the text, how late it came, and what each token read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.nn import functional as F

from cluster.sampling import saved_model
from cluster.terminal import refuse_options
from data_pipeline.config import BadInput
from data_pipeline.pair_data import PairData
from data_pipeline.tokenizers.stored import load_tokenizer
from evals.metrics.latency import ReadPath, average_lagging, differentiable_average_lagging
from evals.pictures.alignment import write_alignment
from evals.translation import Translator, longest_output
from pretrain.models.seq2seq.encoder_decoder import Translation
from pretrain.run_directory import TOKENIZER, read_experiment

END = "(end)"
"""Of source and target, beside the axes of a picture."""
Text = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class ShownTranslation:
    """One source, and what was written of it."""

    source: tuple[int, ...]
    translation: Translation
    text_of: Text
    source_text: str
    reference_text: str = ""
    """Empty where none is known."""

    @property
    def text(self) -> str:
        return self.text_of(self.translation.tokens)

    def latency_line(self) -> str:
        """How late the tokens came, for people."""
        reads = self.translation.reads
        if not reads:
            return "nothing was written, so there is no latency"
        path = ReadPath(reads, len(self.source), len(reads))
        return (
            f"{len(reads)} tokens for {len(self.source)}: differentiable average lagging "
            f"{differentiable_average_lagging(path):.2f} source tokens, average lagging {average_lagging(path):.2f}; "
            f"read when each was written: {' '.join(map(str, reads))}"
        )

    def draw(self, path: Path) -> None:
        """The alignment as a PNG, with the end of the source as a column and, if it was written, of the target."""
        steps, boundary = self.translation.steps, self.translation.boundary
        names = [END if step.token == boundary else self.text_of([step.token]) for step in steps]
        seen_TJ = self.translation.alignment()
        weights_TS = F.pad(seen_TJ, (0, len(self.source) + 1 - seen_TJ.shape[1]))
        sources = [*(self.text_of([token]) for token in self.source), END]
        write_alignment(weights_TS, sources=sources, targets=names, reads=[s.reads for s in steps], path=path)


def is_translator(directory: Path) -> bool:
    """Whether the run's model takes a source rather than the beginning of a text."""
    return read_experiment(directory).model.reads == "pairs"


def refuse_drawing(options: Mapping[str, object]) -> None:
    """BadInput for an option of text that is drawn."""
    refuse_options(options, "is of text that is drawn, and a translation takes the likeliest; leave it out")


def translate_prompt(
    directory: Path,
    *,
    prompt: str,
    max_tokens: int,
    out: Path | None = None,
    step: int | None = None,
    kernels: Sequence[str] = (),
) -> ShownTranslation:
    """The prompt's translation, read as a stream, greedily; its alignment goes to `out`.

    Without a tokenizer, as of synthetic pairs, the prompt is token ids, and so is the text. Raises BadInput for an
    empty prompt, ids that are none, or a number of tokens below 1.
    """
    if max_tokens < 1:
        raise BadInput(f"--tokens {max_tokens}: must be at least 1")
    model, experiment = saved_model(directory, step, kernels)
    data = experiment.data
    if not isinstance(model, Translator) or not isinstance(data, PairData):
        raise BadInput(f"{directory}: {experiment.model.kind} of data.kind {data.kind} translates nothing")
    text_of: Text = data.text
    if (directory / TOKENIZER).is_dir():
        tokenizer = load_tokenizer(directory / TOKENIZER)
        source, text_of = tuple(tokenizer.encode_batch([prompt.strip()])[0].tolist()), tokenizer.decode
    else:
        symbols = data.vocab_size() - 1  # the boundary is the last, and in no source
        words = prompt.split()
        if not all(word.isdecimal() and int(word) < symbols for word in words):
            raise BadInput(
                f"--prompt {prompt!r}: this run's data has no tokenizer, so give token ids from 0 to {symbols - 1}"
            )
        source = tuple(map(int, words))
    if not source:
        raise BadInput("--prompt is empty: give a sentence to translate")
    shown = ShownTranslation(source, _translation(model, source, max_tokens), text_of, prompt)
    if out is not None:
        shown.draw(out)
    return shown


def held_out_translations(model: Translator, data: PairData, split: str, count: int) -> Iterator[ShownTranslation]:
    """Of the first pairs of a split."""
    pairs, references = data.pairs(split), data.references(split)
    for number in range(min(count, len(pairs))):
        source, target = (tuple(side[number].tolist()) for side in (pairs.sources, pairs.targets))
        reference = data.text(target) if references is None else references[number]
        translation = _translation(model, source, longest_output(pairs))
        yield ShownTranslation(source, translation, data.text, data.text(source), reference)


def _translation(model: Translator, source: tuple[int, ...], max_tokens: int) -> Translation:
    found = model.translate(source, max_tokens=max_tokens)
    assert isinstance(found, Translation), "all translators so far are of this kind"
    return found
