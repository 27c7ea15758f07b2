"""The verbs of Segue: each parses its arguments and calls one function. Heavy imports wait until a verb needs them."""

import gc
import json
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cluster.jobs.commands import add_verbs
from cluster.jobs.options import (
    Accelerator,
    Join,
    JoinOrSubmit,
    Name,
    Nodes,
    Storage,
    SubmissionFile,
    Workers,
    WorkersPerNode,
    as_job,
    joined,
    shape_of,
)
from cluster.jobs.submit_command import show_submitted
from cluster.terminal import check_writable, console, say, say_error, say_stopped, write_text
from data_pipeline.redaction import redact_standard_streams

EXIT_CODES = """\
[bold]Exit codes[/bold]

0  done

1  different (compare), something is wrong (doctor), or a failure of no other kind

2  bad input

3  refused, as it would harm a run (it is live, there already, or its experiment has changed) or open Ray to others

4  data or checkpoint corrupt

5  stopped as asked, after saving

6  gave up after failures without progress, or could not write what was to be kept

130  interrupted twice"""

INTERRUPTED = 130


class Verbs(TyperGroup):
    """Turns what a user caused into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        from data_pipeline.config import Preempted, SegueError

        try:
            return super().invoke(ctx)
        except Preempted as stop:
            say_stopped(str(stop))
            raise typer.Exit(stop.exit_code) from stop
        except SegueError as error:
            say_error(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            say_error("interrupted; what was saved before is whole")
            raise typer.Exit(INTERRUPTED) from interrupt


app = typer.Typer(
    cls=Verbs,
    help="Distributed pretraining that carries on: across segments, crashes and cluster sizes.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
checkpoints = typer.Typer(help="List, verify, compare, pin, prune or export checkpoints.", no_args_is_help=True)
app.add_typer(checkpoints, name="checkpoints")
data = typer.Typer(help="Show, count or verify what a run reads.", no_args_is_help=True)
app.add_typer(data, name="data")
cluster = typer.Typer(help="Start, stop and show the nodes of a Ray cluster of your own.", no_args_is_help=True)
app.add_typer(cluster, name="cluster")


class LauncherName(StrEnum):
    auto = "auto"
    ray = "ray"
    inline = "inline"


class WeightType(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class ExportForm(StrEnum):
    safetensors = "safetensors"
    huggingface = "huggingface"


class ExecutorChoice(StrEnum):
    local = "local"
    ray = "ray"


Recipe = Annotated[
    str, typer.Argument(help="A recipe's name (`recipes` lists them) or a YAML file.", show_default=False)
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes, such as steps=100 model.num_layers=12.", metavar="[KEY=VALUE]...")
]
DataTarget = Annotated[
    str, typer.Argument(help="Prepared data, a run, or a recipe.", metavar="TARGET", show_default=False)
]
RunDirectory = Annotated[Path, typer.Argument(help="A run's directory.", metavar="DIR", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LauncherOption = Annotated[
    LauncherName,
    typer.Option(help="inline: one worker, in this process; ray: in processes; auto: inline for one worker."),
]
CheckpointStep = Annotated[
    int | None, typer.Option("--checkpoint", metavar="STEP", help="Of this step, instead of the newest good one.")
]
KernelChoices = Annotated[
    list[str] | None,
    typer.Option("--kernel", metavar="NAME=CHOICE", help="Instead of the run's choice; may be repeated."),
]


@app.callback()
def common(
    directory: Annotated[
        Path | None,
        typer.Option("-C", help="Change to this directory first: relative paths begin there.", metavar="DIR"),
    ] = None,
) -> None:
    if directory is not None:
        from data_pipeline.config import BadInput

        sys.argv[0] = os.path.abspath(sys.argv[0])  # Ray's workers look for the code beside it
        try:
            os.chdir(directory)
        except OSError as error:
            raise BadInput(f"-C {directory}: {error.strerror}") from error


@app.command()
def prepare(
    recipe: Recipe,
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes at a time; as many as processors, if not given.")
    ] = None,
    executor: Annotated[
        ExecutorChoice, typer.Option(help="Processes of this machine, or Ray tasks.")
    ] = ExecutorChoice.local,
    address: JoinOrSubmit = None,
    name: Name = None,
    storage: Storage = None,
    status: Annotated[bool, typer.Option("--status", help="Tell how far it is, and start nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make the token shards or tars that a recipe trains on. Goes on where it was interrupted, keeps what is there."""
    from cluster.data_verbs.status import say_nothing, show_status
    from cluster.prepare import prepare_any, to_prepare
    from pretrain.experiment import load_experiment

    experiment = load_experiment(recipe, overrides or ())
    wanted = to_prepare(experiment.data)
    if status:
        show_status(experiment.data, as_json=as_json)
        return
    if as_job(address, name, storage):
        from cluster.jobs.submit import Place, submit_preparation

        show_submitted(
            submit_preparation(experiment, Place(str(address), storage, name), workers), str(address), as_json
        )
        return
    if not wanted:
        say_nothing(experiment.data)
    for one in wanted:
        prepare_any(one, executor=executor.value, workers=workers, address=address, console=console())


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    run: Annotated[
        Path | None, typer.Option(help="A new directory for the run; runs/NAME of the recipe, if not given.")
    ] = None,
    workers: Workers = None,
    nodes: Nodes = None,
    workers_per_node: WorkersPerNode = None,
    accelerator: Accelerator = None,
    launcher: LauncherOption = LauncherName.auto,
    address: Join = None,
    carry_on: Annotated[
        bool, typer.Option("--carry-on", help="Where the run is there already, go on with it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Print what would run and what it needs, and stop.")] = False,
    submission: SubmissionFile = None,
) -> None:
    """Start a run. SIGTERM or Ctrl-C saves it and stops; `resume` goes on."""
    from cluster.jobs.record import read_record
    from cluster.topology import ANYWHERE
    from cluster.train import carry_on as carry_on_run
    from cluster.train import dry_run as describe
    from cluster.train import train as train_run
    from pretrain.experiment import load_experiment

    experiment = load_experiment(recipe, overrides or ())
    shape = shape_of(workers, nodes, workers_per_node, accelerator) or ANYWHERE
    if dry_run:
        describe(experiment, workers=shape, launcher=launcher.value, address=address, console=console())
        return
    directory = run or Path("runs") / experiment.name
    where: dict[str, Any] = {"workers": shape, "launcher": launcher.value, "address": joined(address, nodes)}
    if carry_on:
        carry_on_run(experiment, directory, record=read_record(submission), console=console(), **where)
    else:
        train_run(experiment, directory, console=console(), **where)


@app.command()
def resume(
    directory: Annotated[
        Path, typer.Argument(help="A run's directory; with --address URL, a job's id.", metavar="DIR|ID")
    ],
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option(help="As many as at the last start, if nothing is given.", show_default=False)
    ] = None,
    nodes: Nodes = None,
    workers_per_node: WorkersPerNode = None,
    accelerator: Accelerator = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A key whose change is meant, such as steps. May be repeated."),
    ] = None,
    launcher: LauncherOption = LauncherName.auto,
    address: JoinOrSubmit = None,
    submission: SubmissionFile = None,
    as_json: Json = False,
) -> None:
    """Go on with a run from its newest good checkpoint, on any number of workers that divides the micro-batches."""
    shape = shape_of(workers, nodes, workers_per_node, accelerator)
    if accelerator is not None and workers is None and nodes is None:
        raise typer.BadParameter("--accelerator: say how many workers, too: --workers N")
    changes, allowed = tuple(overrides or ()), tuple(allow or ())
    if as_job(address):
        from cluster.jobs.submit import Place, submit_resumption

        place = Place(str(address), shape=shape)
        show_submitted(submit_resumption(str(directory), place, changes, allowed), str(address), as_json)
        return
    from cluster.jobs.record import read_record
    from cluster.train import resume as resume_run

    resume_run(
        directory,
        workers=shape,
        overrides=changes,
        allowed=allowed,
        launcher=launcher.value,
        address=joined(address, nodes),
        record=read_record(submission),
        console=console(),
    )


@app.command()
def evaluate(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A run, an export, hf:NAME of transformers, kneser-ney:FILE or uniform:bytes.", show_default=False
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option(help="Benchmark tasks, or gpt2-table for all of that table.", metavar="NAMES")
    ] = None,
    list_tasks: Annotated[bool, typer.Option("--list", help="Which tasks there are.")] = False,
    data_directory: Annotated[
        Path | None, typer.Option("--data-dir", help="Files of tasks, a folder each; else the hub.", metavar="DIR")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first examples of each task.", min=1)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep each example's result, and go on with what is there.", metavar="JSONL")
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--table", help="Write the table: .md, .json, .csv or .png.", metavar="FILE")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Another target, in a column of its own: a baseline, a model.", metavar="TARGET"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the tasks; no number depends on it.", min=1)
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens of running text that a window scores.", min=1)] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that a model of windows reads at a time.", min=1)] = None,
    model_dtype: Annotated[
        WeightType | None,
        typer.Option(
            "--dtype", help="Of a model of transformers; else float32. In others digits may depend on --rows."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which held-out documents; valid, if not given.", show_default=False)
    ] = None,
    checkpoint: CheckpointStep = None,
    memory_length: Annotated[int | None, typer.Option(help="Another length of memory than in training.")] = None,
    segment_length: Annotated[int | None, typer.Option(help="Tokens read at a time.")] = None,
    clamp_length: Annotated[int | None, typer.Option(help="Distances beyond it share its encoding.")] = None,
    same_length: Annotated[
        bool | None, typer.Option(help="Every position sees the same number of earlier ones.", show_default=False)
    ] = None,
    rows: Annotated[
        int, typer.Option(help="Documents read side by side; text scores do not depend on it.", min=1)
    ] = 16,
    max_tokens: Annotated[int | None, typer.Option(help="The first whole documents of no more tokens.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Draws of the latents for a bound of log p(x); 50, if not given.", min=1)
    ] = None,
    kernel: KernelChoices = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here too.")] = None,
) -> None:
    """Score held-out data, or benchmark tasks zero-shot, with a run's newest checkpoint."""
    if list_tasks:
        from cluster.evaluation import task_list

        console().print(task_list())
        return
    if target is None:
        raise typer.BadParameter("give a run's directory or hf:NAME, or --list")
    if tasks:
        from cluster.evaluation import refuse_given, run_tasks
        from evals.targets import Target

        refuse_given(
            {"--max-tokens": max_tokens, "--json": json_file, "--split": split, "--samples": samples}, with_tasks=True
        )
        for path in tables or ():
            check_writable(path, "--table")
        asked = Target(
            name=target,
            checkpoint=checkpoint,
            segment_length=segment_length,
            memory_length=memory_length,
            clamp_length=clamp_length,
            same_length=same_length,
            stride=stride,
            kernels=tuple(kernel or ()),
            dtype=None if model_dtype is None else model_dtype.value,
            context=context,
        )
        run_tasks(
            asked, tasks, console(), beside=beside or (), data_directory=data_directory, out=out, tables=tables or (),
            rows=rows, limit=limit, workers=workers or 1,
        )  # fmt: skip
        return
    from cluster.evaluation import refuse_given
    from cluster.tables import metrics_table
    from evals.evaluate import evaluate_run

    given = {"--data-dir": data_directory, "--limit": limit, "--out": out, "--table": tables, "--beside": beside}
    refuse_given(
        given | {"--stride": stride, "--context": context, "--dtype": model_dtype, "--workers": workers},
        with_tasks=False,
    )
    if json_file is not None:
        check_writable(json_file, "--json")
    directory = Path(target)
    if not directory.is_dir():
        from data_pipeline.config import BadInput

        raise BadInput(
            f"{target}: is no run's directory, and only runs have held-out data; say which benchmark tasks with --tasks"
        )
    result = evaluate_run(
        directory,
        split=split or "valid",
        checkpoint=checkpoint,
        memory_length=memory_length,
        segment_length=segment_length,
        clamp_length=clamp_length,
        same_length=same_length,
        rows=rows,
        max_tokens=max_tokens,
        samples=samples,
        kernels=kernel or (),
    )
    say(result.lines()[0])
    console().print(metrics_table(result.metrics))
    if json_file is not None:
        write_text(json_file, "--json", json.dumps(result.to_json(), indent=2) + "\n")


@app.command()
def sample(
    directory: RunDirectory,
    prompt: Annotated[str | None, typer.Option(help="How the text begins, or what is to be translated.")] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Written after the prompt, of a translation at most; 100, if not given.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal samples.")] = 0,
    temperature: Annotated[
        float | None, typer.Option(help="Below 1 safer, above 1 wilder; 0 takes the likeliest; 1, if not given.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the K likeliest only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest that make up this probability.")] = None,
    count: Annotated[int | None, typer.Option(help="How many images; 64, if not given.")] = None,
    label: Annotated[
        int | None, typer.Option("--class", help="All of this class, of a model that is told classes.", metavar="N")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the text, or PNG for images or an alignment.", metavar="FILE")
    ] = None,
    checkpoint: CheckpointStep = None,
    kernel: KernelChoices = None,
) -> None:
    """Write text with a language model; translate the prompt with a translator (--out: a PNG of the alignment); with
    another draw images, points or waves (a PNG, .npy, and .wav of waves)."""
    from cluster.sampling import check_picture, refuse_given, sample_text, sample_vectors, write_vectors

    of_text = {"--tokens": tokens, "--temperature": temperature, "--top-k": top_k, "--top-p": top_p}
    refuse_given(of_text if prompt is None else {"--count": count, "--class": label}, with_prompt=prompt is not None)
    if out is not None:
        check_writable(out, "--out", make_directory=prompt is None)
    if prompt is None:
        path = out or directory / "samples.png"
        check_picture(path)
        values_ND, data = sample_vectors(
            directory,
            count=64 if count is None else count,
            label=label,
            seed=seed,
            step=checkpoint,
            kernels=kernel or (),
        )
        write_vectors(values_ND, path, data)
        say(f"{len(values_ND)} samples: {path} and {path.with_suffix('.npy')}")
        return
    from cluster.translation import is_translator, refuse_drawing, translate_prompt

    if is_translator(directory):
        refuse_drawing({"--temperature": temperature, "--top-k": top_k, "--top-p": top_p})
        shown = translate_prompt(
            directory,
            prompt=prompt,
            max_tokens=100 if tokens is None else tokens,
            out=out,
            step=checkpoint,
            kernels=kernel or (),
        )
        print(shown.text)
        say(shown.latency_line())
        return
    text = sample_text(
        directory,
        prompt=prompt,
        num_tokens=100 if tokens is None else tokens,
        temperature=1.0 if temperature is None else temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        step=checkpoint,
        kernels=kernel or (),
    )
    print(text)
    if out is not None:
        write_text(out, "--out", text)


@app.command()
def report(
    directory: RunDirectory,
    split: Annotated[str, typer.Option(help="Of the held-out scores and pictures.")] = "valid",
    checkpoint: CheckpointStep = None,
) -> None:
    """A run on one page: loss, held-out scores, and every picture that its model can give."""
    from cluster.report import write_report

    say(f"{write_report(directory, split=split, step=checkpoint)}: the report")


@app.command()
def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(help="For this number of workers; may be repeated. All that are possible, if not given."),
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="For one worker on each accelerator of this kind, such as h100.", metavar="NAME")
    ] = None,
    accelerators: Annotated[
        list[str] | None,
        typer.Option(help="How many, or FROM-TO, doubling; may be repeated. 1-16384, if not given.", metavar="N"),
    ] = None,
    nodes: Annotated[list[str] | None, typer.Option(help="Likewise, of whole nodes.", metavar="N")] = None,
    utilisation: Annotated[
        float | None, typer.Option(help="Share of its peak that an accelerator reaches; 0.4, if not given.")
    ] = None,
    storage_bandwidth: Annotated[
        float | None, typer.Option(help="GB/s at which all workers together write; 1, if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a run needs: parameters, FLOPs, memory of a worker by part, disk. On accelerators of a kind also days,
    communication and the time of a checkpoint, from one to thousands."""
    gc.disable()  # a fifth of the time would go into looking for garbage, while a thousand modules are imported
    from cluster.planning import OnAccelerators, print_plan
    from pretrain.experiment import load_experiment

    print_plan(
        load_experiment(recipe, overrides or ()),
        workers=workers or (),
        asked=OnAccelerators(accelerator, accelerators or (), nodes or (), utilisation, storage_bandwidth),
        as_json=as_json,
        console=console(),
    )


@app.command()
def models(as_json: Json = False) -> None:
    """What each model can do: evaluate p(x), sample, extract latents, control."""
    from cluster.tables import model_rows, models_table

    if as_json:
        print(json.dumps(model_rows(), indent=2))
    else:
        console().print(models_table())


@app.command()
def recipes() -> None:
    """The recipes that come with Segue."""
    from pretrain.config import recipe_names, recipe_path

    for name in recipe_names():
        print(f"{name:40} {recipe_path(name)}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine has for a run, and what is wrong with it."""
    from pretrain.doctor import diagnose

    findings = diagnose(Path())
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        from cluster.tables import doctor_table

        console().print(doctor_table(findings))
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


@data.command("inspect")
def inspect_data(
    target: DataTarget,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Of the batch.")] = "train",
    draw: Annotated[int, typer.Option(help="Which batch, counted from the run's beginning.", min=0)] = 0,
    rows: Annotated[int, typer.Option(help="How many of its rows are shown.", min=1)] = 4,
    png: Annotated[Path | None, typer.Option(help="Draw a batch of images, points or waves.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """The tree of sources with fingerprints and counts, and a batch as the model sees it."""
    from cluster.data_verbs.inspecting import inspect_target
    from cluster.data_verbs.target import open_target

    inspect_target(
        open_target(target, tuple(overrides or ())),
        split=split, draw=draw, rows=rows, picture=png, as_json=as_json, console=console(),
    )  # fmt: skip


@data.command("verify")
def verify_data(
    target: DataTarget,
    overrides: Overrides = None,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Rename damaged files: `prepare` makes them anew, or runs skip them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every file and compare it with its hash. Exit code 4, naming all that are damaged."""
    from cluster.data_verbs.target import open_target
    from cluster.data_verbs.verifying import verify_target

    verify_target(open_target(target, tuple(overrides or ())), set_aside=set_aside, as_json=as_json, console=console())


@data.command("stats")
def data_stats(
    target: DataTarget,
    overrides: Overrides = None,
    png: Annotated[Path | None, typer.Option(help="Draw the histograms.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """How long documents and items are, and how many tokens and bytes there are, by source and split."""
    from cluster.data_verbs.stats import show_stats
    from cluster.data_verbs.target import open_target

    show_stats(open_target(target, tuple(overrides or ())), picture=png, as_json=as_json, console=console())


@checkpoints.command("list")
def list_checkpoints(directory: RunDirectory) -> None:
    """All checkpoints of a run."""
    from cluster.inspection import checkpoints_table

    console().print(checkpoints_table(directory))


@checkpoints.command("verify")
def verify_checkpoints(
    directory: Annotated[
        Path, typer.Argument(help="A run's directory, or a checkpoint's.", metavar="DIR", show_default=False)
    ],
) -> None:
    """Read every byte of a run's checkpoints (or of one) and compare it with its hash."""
    from cluster.inspection import verify

    for line in verify(directory):
        print(line)


@checkpoints.command("compare")
def compare_checkpoints(
    a: Annotated[
        Path, typer.Argument(help="A run (its newest checkpoint), or a checkpoint's directory.", show_default=False)
    ],
    b: Annotated[Path, typer.Argument(help="Another.", show_default=False)],
) -> None:
    """Whether two checkpoints are equal in every bit: weights, optimizer, memory, counters. Exit code 1 if not."""
    from cluster.inspection import compare

    equal, lines = compare(a, b)
    for line in lines:
        print(line)
    if not equal:
        raise typer.Exit(1)


@checkpoints.command("pin")
def pin_checkpoint(
    directory: RunDirectory,
    step: Annotated[int, typer.Argument(help="Of the checkpoint.", show_default=False)],
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Keep a checkpoint until it is unpinned, however old it gets."""
    from cluster.inspection import pin

    say(pin(directory, step, note))


@checkpoints.command("unpin")
def unpin_checkpoint(
    directory: RunDirectory, step: Annotated[int, typer.Argument(help="Of the checkpoint.", show_default=False)]
) -> None:
    """Let a pinned checkpoint go like any other."""
    from cluster.inspection import unpin

    say(unpin(directory, step))


@checkpoints.command("prune")
def prune_checkpoints(
    directory: RunDirectory,
    keep: Annotated[int, typer.Option(help="So many of the newest stay.", show_default=False)],
    dry_run: Annotated[bool, typer.Option(help="Say what would go, and remove nothing.")] = False,
) -> None:
    """Remove all but the newest checkpoints, once those that stay are read and found good. Pinned ones stay."""
    from cluster.inspection import prune

    for line in prune(directory, keep, dry_run):
        print(line)


@app.command("export")
@checkpoints.command("export")
def export_weights(
    directory: RunDirectory,
    place: Annotated[Path, typer.Argument(help="A new file or directory.", metavar="PLACE", show_default=False)],
    form: Annotated[
        ExportForm, typer.Option("--format", help="One file, or a directory that transformers loads (models: gpt).")
    ] = ExportForm.safetensors,
    checkpoint: CheckpointStep = None,
    dtype: Annotated[WeightType, typer.Option(help="Of the weights.")] = WeightType.float32,
) -> None:
    """Write the weights so that they are read without Segue: one safetensors file, the experiment in its metadata;
    or a directory for transformers, with tokenizer and model card."""
    from cluster.huggingface_export import export_huggingface
    from cluster.inspection import existing, export

    write = export if form == ExportForm.safetensors else export_huggingface
    say(write(existing(directory), place, checkpoint, dtype.value))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A run's directory.", metavar="RUN_A", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another's.", metavar="RUN_B", show_default=False)],
    as_json: Json = False,
) -> None:
    """Where two runs part: the first step, then the first tensor, that differs. Exit code 1 if they do."""
    from cluster.comparison import compare_runs

    found = compare_runs(a, b)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        for line in found.lines():
            say(line)
    if not found.equal:
        raise typer.Exit(1)


@cluster.command("start")
def start_node(
    host: Annotated[
        str, typer.Option(help="This node's address; another than loopback opens it to who has the token.")
    ] = "127.0.0.1",
    join: Annotated[
        str | None, typer.Option(help="Add a node to the cluster of this head.", metavar="HEAD:PORT")
    ] = None,
    name: Annotated[str | None, typer.Option(help="For `stop`; head, node-1, node-2 and so on, if not given.")] = None,
    num_cpus: Annotated[int | None, typer.Option(help="As many as it has, if not given.", min=0)] = None,
    num_gpus: Annotated[int | None, typer.Option(help="As many as it has, if not given.", min=0)] = None,
    port: Annotated[
        int | None, typer.Option(help="The head's; 6379 or a free one, if not given.", min=1024, max=65535)
    ] = None,
    dashboard_port: Annotated[
        int | None, typer.Option(help="To submit to; 8265 or a free one, if not given.", min=1024, max=65535)
    ] = None,
) -> None:
    """Start the head of a Ray cluster on this machine, on loopback and with Ray's token authentication, or join one."""
    from cluster import nodes
    from cluster.node_status import start_lines

    wanted = nodes.Wanted(name, host, join, port, dashboard_port, num_cpus, num_gpus)
    for line in start_lines(nodes.start(wanted, say)):
        say(line)


@cluster.command("stop")
def stop_nodes(
    name: Annotated[
        str | None, typer.Argument(help="One node; all that were started on this machine, if not given.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Also where jobs are running: they end without saving.")] = False,
) -> None:
    """End the nodes that `cluster start` started on this machine, and all that runs on them."""
    from cluster.nodes import stop

    ended = stop(name, force=force)
    say(f"stopped {', '.join(ended)}" if ended else "no node of Ray's was started on this machine")


@cluster.command("status")
def show_nodes(as_json: Json = False) -> None:
    """The nodes that were started on this machine, and what their clusters have. Exit code 1 if one is gone."""
    from cluster import node_record, node_status

    records = node_record.records()
    views = node_status.clusters(records)
    if as_json:
        print(json.dumps(node_status.to_json(records, views), indent=2))
    else:
        for line in node_status.lines(records, views):
            say(line)
    if not node_status.is_well(records, views):
        raise typer.Exit(1)


@cluster.command("demo")
def demonstrate_cluster(overrides: Overrides = None) -> None:
    """A cluster of two nodes on this machine that loses one, and gets it back, while a job trains on it."""
    from cluster.demo import demo

    demo(console(), tuple(overrides or ()))


@app.command()
def quickstart(
    corpus: Annotated[Path | None, typer.Option(help="Your own text: a file or a directory.")] = None,
    run: Annotated[Path | None, typer.Option(help="Where the run goes; runs/quickstart, if not given.")] = None,
) -> None:
    """The main job, end to end, in minutes: prepare, train, lose a worker, carry on, evaluate, sample."""
    from cluster.quickstart import quickstart as run_quickstart

    run_quickstart(corpus=corpus, run=run, console=console())


add_verbs(app)


def main() -> None:
    """The console script `segue`; what it prints, tracebacks of unexpected errors too, holds no secret."""
    redact_standard_streams()
    code: object = 0
    try:
        app(prog_name="segue")
    except SystemExit as ended:
        code = ended.code
    for number in (signal.SIGTERM, signal.SIGUSR1):  # all is done: a second one must not change how it has ended
        signal.signal(number, signal.SIG_IGN)
    if "deepspeed" in sys.modules:
        # ZeRO-3 now and then aborts while the interpreter ends; by now all is written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)
    sys.exit(code if isinstance(code, int | str) else 0)


if __name__ == "__main__":
    main()
