"""`table.parquet`: the columns of `table.csv` with their types; what there is not is null."""

from harness.store import whole
from harness.typeset import FIELDS, records


def render(board, folder):
    """Write `folder/table.parquet`."""
    import pyarrow
    from pyarrow import parquet

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in FIELDS.items()])
    path = folder / "table.parquet"
    with whole(path) as part:
        parquet.write_table(pyarrow.Table.from_pylist([_typed(r) for r in records(board)], schema), part)
    return [path]


def _typed(record):
    """Numbers of the column's type, text that UTF-8 can hold."""
    made = {}
    for name, value in record.items():
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode("utf-8")
        made[name] = value if value is None else FIELDS[name](value)
    return made
