"""enwik8 and text8: which bytes are scored, and bits per byte whatever the tokenizer."""

import math
from pathlib import Path

import pytest

from data_pipeline.config import BadInput
from evals.scoring.item import Item
from evals.tasks import TASKS, enwik8
from evals.tasks.data import DataSource, Missing
from evals.tasks.task import Record, Task
from tests.evals.benchmark_data import benchmark_data
from tests.evals.tasks.fakes import RunsOfBytes, evaluate, fake_hub, one_nat_each

TEXT = "naïve 東京 <page>\r\n\t&amp; café\u2028" * 30


def write(place: Path, corpus: str, content: bytes) -> DataSource:
    (place / corpus).mkdir(exist_ok=True)
    (place / corpus / corpus).write_bytes(content)
    return DataSource(place)


@pytest.fixture
def of_100_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole corpus has 100 bytes, a split 10."""
    monkeypatch.setattr(enwik8, "FILE_BYTES", 100)
    monkeypatch.setattr(enwik8, "SPLIT_BYTES", 10)


def check_uniform(task: Task, source: DataSource, tokenizer: RunsOfBytes, size: int) -> None:
    """A model that is uniform over bytes: 8 ln 2 nats a byte, however the bytes are cut."""

    def nats(item: Item) -> list[float]:
        size_of = tokenizer.size_of()
        return [size_of[int(token)] * 8 * math.log(2) for token in item.continuation]

    (value,) = evaluate(task, source, tokenizer, nats).values.values()
    assert value.value == pytest.approx(8, rel=1e-12)
    assert value.count == size


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("longest", [1, 2, 7, 40])
def test_uniform_over_bytes_is_eight_bits_in_any_tokens(tmp_path: Path, seed: int, longest: int) -> None:
    source = write(tmp_path, "enwik8", TEXT.encode())
    check_uniform(TASKS["enwik8"], source, RunsOfBytes(longest, seed), len(TEXT.encode()))


def test_equal_nats_give_an_equal_value(tmp_path: Path) -> None:
    """1,000 nats on the text, spread over its tokens however many these are."""
    source = write(tmp_path, "enwik8", TEXT.encode())
    found = [
        evaluate(
            TASKS["enwik8"],
            source,
            RunsOfBytes(longest, longest),
            lambda item: [1000 / len(item.continuation)] * len(item.continuation),
        )
        for longest in (1, 3, 9, 27)
    ]
    assert len({len(one.work.items[0].continuation) for one in found}) == 4
    expected = 1000 / math.log(2) / len(TEXT.encode())
    assert [one.values["bits_per_byte"].value for one in found] == pytest.approx([expected] * 4, rel=1e-12)


@pytest.mark.parametrize(("max_length", "stride"), [(40, None), (40, 9), (9999, None)])
def test_bytes_are_counted_once_in_many_windows(tmp_path: Path, max_length: int, stride: int | None) -> None:
    content = TEXT.encode() * 4
    source = write(tmp_path, "enwik8", content)
    found = evaluate(TASKS["enwik8"], source, RunsOfBytes(), one_nat_each, max_length=max_length, stride=stride)
    assert (len(found.records) > 2) == (max_length < len(content))
    value = found.values["bits_per_byte"]
    assert (value.value, value.count) == (pytest.approx(1 / math.log(2), rel=1e-12), len(content))


@pytest.mark.parametrize("mistake", ["characters", "tokens", "nats"])
def test_a_planted_mistake_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    source = write(tmp_path, "enwik8", TEXT.encode())
    task = TASKS["enwik8"]
    right = task.judge

    def wrong(*given: object) -> Record:
        record = right(*given)  # type: ignore[arg-type]
        wrongly = {"characters": {"bytes": len(TEXT)}, "tokens": {"bytes": record["tokens"]}, "nats": {}}
        return record | wrongly[mistake] | ({"nats": record["nats"] / math.log(2)} if mistake == "nats" else {})

    monkeypatch.setattr(task, "judge", wrong)
    with pytest.raises(AssertionError):
        check_uniform(task, source, RunsOfBytes(3, 1), len(TEXT.encode()))


def test_a_short_file_is_scored_whole_and_says_so(tmp_path: Path) -> None:
    content = TEXT.encode()
    data = TASKS["enwik8"].load(write(tmp_path, "enwik8", content))
    (example,) = TASKS["enwik8"].examples(data)
    assert example.text is not None
    assert example.text.encode() == content
    size = f"{len(content):,}"
    whole = "the file is not the whole corpus, so all of it is scored"
    assert data.notes == {"bytes": f"0 to {size} of {size}; {whole}", "bytes_left_out": 0}
    with pytest.raises(BadInput, match="only the whole file, of 100,000,000, has a validation split"):
        TASKS["enwik8/validation"].load(DataSource(tmp_path))


@pytest.mark.usefixtures("of_100_bytes")
@pytest.mark.parametrize("shift", range(4))
def test_splits_meet_at_characters_and_lose_no_byte(tmp_path: Path, shift: int) -> None:
    """Four-byte characters at every offset to the borders."""
    content = ("a" * shift + "𝄞" * 25).encode()[:100]
    source = write(tmp_path, "enwik8", content)
    scored = {}
    for name in ("enwik8", "enwik8/validation"):
        data = TASKS[name].load(source)
        ((text, size),) = data.rows
        assert size == len(text.encode())
        scored[name] = text.encode()
    cut = (100 - shift) % 4
    begin = next(place for place in range(80, 84) if (place - shift) % 4 == 0)
    assert scored["enwik8/validation"] + scored["enwik8"] == content[begin : 100 - cut]
    assert TASKS["enwik8"].load(source).notes["bytes_left_out"] == cut
    assert TASKS["enwik8/validation"].load(source).notes["bytes_left_out"] == 0


@pytest.mark.usefixtures("of_100_bytes")
def test_the_last_bytes_of_the_whole_file_are_the_test_split(tmp_path: Path) -> None:
    letters = b"abcdefghijklmnopqrst" * 5
    data = TASKS["text8"].load(write(tmp_path, "text8", letters))
    assert data.rows == [("klmnopqrst", 10)]
    assert data.notes["bytes"] == "90 to 100 of 100"
    validation = TASKS["text8/validation"].load(DataSource(tmp_path))
    assert validation.rows == [("abcdefghij", 10)]


def test_text8_is_fed_as_it_is(tmp_path: Path) -> None:
    content = b" anarchism originated  as a term "
    found = evaluate(TASKS["text8"], write(tmp_path, "text8", content), RunsOfBytes(), one_nat_each)
    assert found.work.examples[0].text == content.decode()
    value = found.values["bits_per_character"]
    assert (value.value, value.unit, value.count) == (pytest.approx(1 / math.log(2)), "bits/character", len(content))


def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Missing, match=r"enwik8: no enwik8 \(or .gz\) in "):
        TASKS["enwik8"].load(DataSource(tmp_path))
    for content, message in {
        b"": "^enwik8/enwik8: is empty",
        b"abc\xff\xfe": r"^enwik8/enwik8: byte 3 is no UTF-8 \(invalid start byte\); is it damaged\?",
        b"\x80abc": "^enwik8/enwik8: byte 0 is no UTF-8",
        b"\xe6\x9d": "^enwik8/enwik8: has no whole character from byte 0 to 2",
    }.items():
        with pytest.raises(BadInput, match=message):
            TASKS["enwik8"].load(write(tmp_path, "enwik8", content))
    for content, found in {b"one two\n": r"byte 7 is b'\\n'", b"One": "byte 0 is b'O'"}.items():
        with pytest.raises(BadInput, match=f"^text8/text8: {found}; text8 has a to z and blanks alone"):
            TASKS["text8"].load(write(tmp_path, "text8", content))
    monkeypatch.setattr(enwik8, "FILE_BYTES", 4)
    with pytest.raises(BadInput, match=r"^text8/text8: has 5 bytes, must have 4 or be a part of that file"):
        TASKS["text8"].load(write(tmp_path, "text8", b"abcde"))


@pytest.mark.usefixtures("of_100_bytes")
def test_the_hub_must_have_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, lambda *names, **more: [{"text": "x" * 100}])
    assert TASKS["enwik8"].load(DataSource()).rows == [("x" * 10, 10)]
    fake_hub(monkeypatch, lambda *names, **more: [{"text": "x" * 99}])
    with pytest.raises(Missing, match="what is there has 99 bytes, not 100"):
        TASKS["enwik8"].load(DataSource())
    splits = {"train": 80 * "a", "validation": 10 * "b", "test": 10 * "c"}
    fake_hub(monkeypatch, lambda *names, **more: {name: [{"text": text}] for name, text in splits.items()})
    assert TASKS["text8"].load(DataSource()).rows == [("c" * 10, 10)]
    assert TASKS["text8/validation"].load(DataSource()).rows == [("b" * 10, 10)]


def test_the_first_bytes_of_enwik8(tmp_path: Path) -> None:
    path = benchmark_data() / "enwik_bits" / "enwik5"
    if not path.is_file():
        pytest.skip(f"no {path}")
    content = path.read_bytes()
    source = write(tmp_path, "enwik8", content)
    check_uniform(TASKS["enwik8"], source, RunsOfBytes(6, 3), 100_001)
    assert len(content.decode()) < len(content), "it has characters of several bytes"


def test_splits_have_five_million_bytes_of_a_hundred_million() -> None:
    """Mahoney's file, and the split of the papers."""
    assert (enwik8.FILE_BYTES, enwik8.SPLIT_BYTES) == (100_000_000, 5_000_000)
