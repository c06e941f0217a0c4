"""Evaluation of a model on labelled photographs: what ``nlml-hpe evaluate`` and ``NLML_HPE_Test --dataset`` do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import compress
from pathlib import Path

from nlml_hpe.detection.detectors import open_detector_for
from nlml_hpe.detection.landmarks import LandmarkDetector
from nlml_hpe.device import resolve_device
from nlml_hpe.evaluation.datasets import Dataset, chosen_by_list, read_dataset
from nlml_hpe.evaluation.evaluate import Evaluation, evaluate, require_answer
from nlml_hpe.evaluation.faces import Answered, ask, is_known, photographs
from nlml_hpe.evaluation.frames import FrameEstimate, estimate_frame
from nlml_hpe.evaluation.protocols import LEAST_FACES, PROTOCOLS, protocol_of
from nlml_hpe.evaluation.report import table, write_report
from nlml_hpe.evaluation.subject import Subject, open_subject
from nlml_hpe.files.folders import fresh_folder, require_replaceable
from nlml_hpe.files.manifests import write_manifest

KIND = "evaluation"
"""What the manifest calls the folder; one of another kind is never replaced."""
_OF_PHOTOGRAPHS = ("root", "protocol", "list", "align_on", "looks")
"""Options without a default that say something of labelled photographs alone."""


def run(given: argparse.Namespace) -> bool:
    """Evaluate, where ``--dataset`` is given.

    All that can be wrong with the options, the folders and the labels is said before the first image is read.

    Parameters
    ----------
    given : Namespace
        The options of ``options.add_arguments``.

    Returns
    -------
    bool
        Whether it was asked for.

    Raises
    ------
    ValueError, ArtifactError, OSError
        With a sentence for the user.
    SystemExit
        With 2, where an option is missing.
    """
    if given.dataset is None:
        if alone := [name for name in _OF_PHOTOGRAPHS if getattr(given, name) is not None]:
            given.command.error(f"--{alone[0].replace('_', '-')} needs --dataset, the name of the folder's layout")
        return False
    if given.root is None:
        given.command.error("--dataset needs --root, the folder of the data set")
    protocol = protocol_of(given.dataset, given.protocol)
    device = resolve_device(given.device or "auto")
    require_replaceable(given.output, KIND)
    require_apart(given.output, given.root, given.align_on)
    data = _chosen(given.dataset, given.root, protocol, given.list)
    other = None if given.align_on is None else _frame_data(given.dataset, given.align_on)
    print(data.summary())
    subject = open_subject(given.model, device)
    with nothing_kept(given.output), fresh_folder(given.output, KIND) as folder:
        evaluation = _evaluated(subject, data, other, protocol, given.looks)
        reports = write_report(folder, evaluation)
        asked = ("dataset", "root", "protocol", "list", "model", "align_on", "looks")
        write_manifest(folder, KIND, {name: str(getattr(given, name)) for name in asked}, {})
    print(table(reports), end="")
    return True


@contextmanager
def nothing_kept(output: Path) -> Iterator[None]:
    """Ctrl-C within the block raises with a sentence for the user: a folder written whole or not at all was not."""
    try:
        yield
    except KeyboardInterrupt:
        # Who catches it prints this sentence, and no other one.
        raise KeyboardInterrupt(f"stopped before the end; nothing was written to {output}") from None


def require_apart(output: Path, root: Path, align_on: Path | None = None) -> None:
    """Require that folders are not one another, nor lie in one another where that would do harm.

    Parameters
    ----------
    output : Path
        Where results are to go.
    root : Path
        The data set.
    align_on : Path, optional
        Another data set, on which a head frame is estimated.

    Raises
    ------
    ValueError
        Where the output lies in the data set, and where one data set lies in the other.
    """
    if align_on is not None:
        first, second = root.resolve(), align_on.resolve()
        if first == second or first in second.parents or second in first.parents:
            raise ValueError("--align-on names the evaluated set itself; a frame is estimated on another one")
    if root.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(f"--output {output} lies in the data set {root}; name a folder outside of it")


def _chosen(dataset: str, root: Path, protocol: str, names: Path | None) -> Dataset:
    """The data set, or those of its faces that a list names. Raises where the protocol leaves none of them."""
    data = chosen_by_list(read_dataset(dataset, root), names)
    if not PROTOCOLS[protocol].includes(data.angles).any():
        raise ValueError(f"{protocol}: {PROTOCOLS[protocol].leaves_none_of(len(data.samples))}")
    return data


def _frame_data(dataset: str, root: Path) -> Dataset:
    """The faces on which a frame is estimated: those in the paper's range."""
    data = read_dataset(dataset, root)
    data.samples = list(compress(data.samples, PROTOCOLS[f"{dataset}-nlml"].includes(data.angles)))
    if len(data.samples) < LEAST_FACES:
        raise ValueError(
            f"--align-on {root}: {len(data.samples)} faces in the paper's range; a head frame is estimated from "
            f"{LEAST_FACES} or more, for it would be uncertain by degrees"
        )
    return data


def _evaluated(subject: Subject, data: Dataset, other: Dataset | None, protocol: str, looks: int | None) -> Evaluation:
    with ExitStack() as opened:
        detector: LandmarkDetector | None = None
        if subject.needs_landmarks or any(sample.box is None for sample in data.samples):
            detector = opened.enter_context(open_detector_for(subject.points, subject.min_confidence))
        aligned = None if other is None else alignment(subject, other, detector, looks)
        if aligned is not None:
            print(aligned.text())
        answered = answers(subject, data, detector, looks)
    return on_protocol(subject, data, answered, protocol, aligned)


def answers(subject: Subject, data: Dataset, detector: LandmarkDetector | None, looks: int | None = None) -> Answered:
    """Every route's answers, and those of their parts, to all samples of a data set whose image reads, in the model's
    named head frame.

    Without a detector routes that look at pixels are shown the labels' boxes.
    """
    return ask(photographs(data, detector, looks=looks), {**subject.routes, **subject.parts})


def on_protocol(
    subject: Subject, data: Dataset, answered: Answered, protocol: str, aligned: FrameEstimate | None = None
) -> Evaluation:
    """The evaluation of the faces that a protocol chooses.

    Parameters
    ----------
    subject : Subject
        What was evaluated.
    data : Dataset
        The labelled faces, and what was left out.
    answered : Answered
        What ``answers`` gave for them.
    protocol : str
        One of ``PROTOCOLS``, of this data set.
    aligned : FrameEstimate, optional
        Figures are also given in this head frame.

    Returns
    -------
    Evaluation
        Report, errors and predictions.

    Raises
    ------
    ValueError
        Where the protocol is not the data set's, where none of its images reads, and where no face was found.
    """
    chosen = answered.chosen(PROTOCOLS[protocol_of(data.name, protocol)].includes(answered.labels))
    if not chosen.names:
        raise ValueError(f"{protocol}: none of its faces has an image that reads; {data.summary()}")
    require_answer(chosen, protocol)
    return evaluate(
        replace(chosen, answers={name: chosen.answers[name] for name in subject.routes}),
        protocol=protocol,
        frame=subject.frame,
        default_route=subject.default,
        own={name: subject.in_own_frame(name, chosen.answers) for name in subject.routes},
        aligned=aligned,
        n_total=len(answered.names),
        left_out=data.left_out,
    )


def alignment(
    subject: Subject, data: Dataset, detector: LandmarkDetector | None, looks: int | None = None
) -> FrameEstimate:
    """The head frame of a data set's labels, by the default route's answers to all its samples.

    Parameters
    ----------
    subject : Subject
        Of which the default route answers.
    data : Dataset
        Labelled faces, others than those that are evaluated.
    detector, looks
        As of ``evaluation.faces.photographs``.

    Returns
    -------
    FrameEstimate
        Named after the data set's folder.

    Raises
    ------
    ValueError
        Where too few faces are found.
    """
    answered = ask(photographs(data, detector, looks=looks), subject.parts)
    own = subject.in_own_frame(subject.default, answered.answers)
    known = is_known(own)
    return estimate_frame(own.rotation[known], answered.true[known], f"aligned on {data.root.resolve().name}")
