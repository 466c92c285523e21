"""Labels of a list as numbers: names by the classes, numbers by their range, groups by a header."""

import re

from vidjax.data.datasets import GROUPED, Dataset
from vidjax.data.lists.lines import labels, whole
from vidjax.data.lists.source import Row
from vidjax.errors import UserError, did_you_mean

# Columns of text lists that hold one label of several.
GROUP_COLUMNS = {
    column
    for groups in GROUPED.values()
    for name, _ in groups
    for column in (name, name + "_class")
}


def group_columns(header: list[str]) -> list[str]:
    """Returns the columns of several labels in the order of a dataset's groups; [] if one lacks."""
    for groups in GROUPED.values():
        # Epic-Kitchens' own list has names in `noun` and numbers in `noun_class`.
        columns = [f"{name}_class" if f"{name}_class" in header else name for name, _ in groups]
        if all(column in header for column in columns):
            return columns
    return []


def group_label(
    path: str, where: str, columns: dict[str, str], names: list[str]
) -> int | tuple[int, ...]:
    """Returns the labels in the columns `names`; -1 where all of them are -1 or missing."""
    if set(labels(columns[name] for name in names)) == {-1}:
        return -1
    for name in names:
        if whole(columns[name]) is None:
            raise UserError(f"{path} {where}: {name} is {columns[name]!r}; write it as a number")
    return tuple(whole(columns[name]) for name in names)


def number(
    path: str,
    rows: list[Row],
    classes: tuple[str, ...] | None,
    dataset: Dataset | None,
    num_classes: int | None,
    need_labels: bool,
) -> tuple[list[int | tuple[int, ...]], tuple[str, ...] | None, list[str]]:
    """Numbers the labels of rows.

    Args:
        path: the list, for messages.
        rows: its rows.
        classes: names of the classes, where known.
        dataset: None for "custom".
        num_classes: labels must be below it; None: any.
        need_labels: raise if a row has none.

    Returns:
        (labels, class names, notices).

    Raises:
        UserError: a label is missing, out of range, or of another kind than the others.
    """
    if (dataset and dataset.groups) or any(isinstance(row.label, tuple) for row in rows):
        numbers = _group_labels(path, rows, dataset, need_labels)
        _check_class_count(path, classes, num_classes)
        return numbers, classes, []
    return _number_labels(path, rows, classes, num_classes, need_labels)


def _group_labels(
    path: str, rows: list[Row], facts: Dataset | None, need_labels: bool
) -> list[int | tuple[int, ...]]:
    """Returns the labels of rows with one for each group of the dataset; -1 for none."""
    first = next((row for row in rows if isinstance(row.label, tuple)), None)
    if first and (not facts.groups if facts else need_labels):
        name = facts.name if facts else "your own (custom)"
        raise UserError(
            f"{path} {first.where}: {first.path} has {len(first.label)} labels, but data of {name} "
            f"has one label a video; set the right dataset ({', '.join(GROUPED)} have several)"
        )
    if not facts:  # data.check only wants the videos
        return [row.label for row in rows]
    names = [name for name, _ in facts.groups]
    for row in rows:
        if row.label == -1 and not need_labels:
            continue
        if not isinstance(row.label, tuple) or len(row.label) != len(names):
            got = "no label" if row.label == -1 else f"the label {row.label!r}"
            raise UserError(
                f"{path} {row.where}: {row.path} has {got}, but {facts.name} needs "
                f"{' and '.join(names)}; give the list a header such as `path,{','.join(names)}`"
            )
        for (name, size), label in zip(facts.groups, row.label, strict=True):
            if not 0 <= label < size:
                raise UserError(
                    f"{path} {row.where}: {name} {label} is out of range for {size} classes, "
                    f"which count from 0"
                )
    return [row.label for row in rows]


def _number_labels(
    path: str,
    rows: list[Row],
    classes: tuple[str, ...] | None,
    num_classes: int | None,
    need_labels: bool,
) -> tuple[list[int], tuple[str, ...] | None, list[str]]:
    """Returns labels as numbers, the class names, and notices."""
    notices = []
    named = {row.label for row in rows if isinstance(row.label, str)}
    if named and any(isinstance(row.label, int) and row.label != -1 for row in rows):
        odd = next(row for row in rows if isinstance(row.label, str))
        kind = "whole number" if _is_fraction(odd.label) else "number"
        raise UserError(f"{path} {odd.where}: label {odd.label!r} is no {kind}, as others are")
    if named and classes is None:
        odd = next((row for row in rows if row.label in named and _is_fraction(row.label)), None)
        if odd:
            raise UserError(
                f"{path} {odd.where}: label {odd.label!r} is no whole number; labels are whole "
                f"numbers from 0, or names"
            )
        classes = tuple(sorted(named))
        notices.append(f"{path}: its {len(classes)} class names are numbered in sorted order")
    if classes is None:
        classes, notices = _names_beside(path, rows, num_classes)
    _check_class_count(path, classes, num_classes)
    limit = num_classes or (len(classes) if classes else None)
    index = {name: number for number, name in enumerate(classes or ())}
    labels = []
    for row in rows:
        label = row.label
        if isinstance(label, str):
            if label not in index:
                hint = did_you_mean(label, index) or "add it to the classes file"
                raise UserError(f"{path} {row.where}: class {label!r} is unknown; {hint}")
            label = index[label]
        if label == -1 and need_labels:
            raise UserError(
                f"{path} {row.where}: {row.path} has no label; write `path label` lines, or call "
                "the column of labels `label`, as classification needs them"
            )
        if label < -1:
            raise UserError(f"{path} {row.where}: label {label} is negative; labels count from 0")
        if limit is not None and label >= limit:
            fix = "labels count from 0" if label == limit else "set the right dataset or classes"
            raise UserError(
                f"{path} {row.where}: label {label} is out of range for {limit} classes; {fix}"
            )
        labels.append(label)
    numbers = {label for label in labels if label != -1}
    if limit is None and len(numbers) > 1 and min(numbers) == 1:
        notices.append(
            f"{path}: class 0 has no videos; labels count from 0, are these counted from 1?"
        )
    return labels, classes, notices


def _check_class_count(path: str, classes: tuple[str, ...] | None, num_classes: int | None) -> None:
    if classes and num_classes and len(classes) != num_classes:
        raise UserError(
            f"{path} has {len(classes)} class names but the number of classes is {num_classes}; "
            "put all names, one a line, into classes.txt beside the list, or set the right dataset"
        )


def _is_fraction(label: str | int) -> bool:
    return isinstance(label, str) and re.fullmatch(r"[+-]?\d*\.\d+", label) is not None


def _names_beside(
    path: str, rows: list[Row], num_classes: int | None
) -> tuple[tuple[str, ...] | None, list[str]]:
    """Returns the class names beside a list's numbers, if each class has one, and notices."""
    pairs = {(row.label, row.name) for row in rows if row.name and row.label != -1}
    names = dict(sorted(pairs))
    if len(pairs) > len(names) or len(names) > len(set(names.values())):
        first, second = _contradiction(pairs)
        return None, [
            f"{path}: its names are not used, as they contradict its numbers: {first[1]!r} is "
            f"{first[0]} and {second[1]!r} {second[0]}"
        ]
    if names and set(names) != set(range(num_classes or len(names))):
        return None, [f"{path}: its names are not used, as some classes have none"]
    return tuple(names.values()) or None, []


def _contradiction(pairs: set[tuple[int, str]]) -> tuple[tuple[int, str], tuple[int, str]]:
    """Returns two pairs with the same number or the same name."""
    numbers, names = {}, {}
    for pair in sorted(pairs):
        other = numbers.setdefault(pair[0], pair)
        other = names.setdefault(pair[1], pair) if other == pair else other
        if other != pair:
            return other, pair
    raise ValueError("no pair contradicts another")
