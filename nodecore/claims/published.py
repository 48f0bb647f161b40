"""The evidence for machines: an RO-Crate that lists its runs, and Table 1 as plain JSON.

    book/results/ro-crate-metadata.json   every run as an action with its data set, date and files
    book/results/results.json             task, data sets, metrics, and the results of either source

Both are made from the records by `make scorecard`.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from nodecore.claims.paper import PAPER
from nodecore.data.datasets import DATASETS
from nodecore.data.files import write_atomically
from nodecore.evidence import store
from nodecore.training.protocols import PROTOCOLS

CRATE = "ro-crate-metadata.json"
RESULTS = "results.json"
MIT = "https://spdx.org/licenses/MIT"
LICENCES = {  # of the images, a few of which lie beside the weights of the runs on them
    "mnist": "CC BY-SA 3.0; copyright Yann LeCun and Corinna Cortes",
    "cifar10": "none is stated; its authors ask to cite Krizhevsky, Learning Multiple Layers of "
    "Features from Tiny Images, 2009",
}
FORMATS = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".safetensors": "application/octet-stream",
}


def crate(root: Path = store.COMMITTED) -> dict[str, Any]:
    """The runs in `root` as a Process Run Crate 0.5, which extends RO-Crate 1.1 (JSON-LD).

    Raises:
        store.RecordError: a file is damaged.
    """
    runs = [store.load_run(path) for path in sorted(root.glob("*/*/*.json"))]
    actions, files = [], []
    for run in runs:
        own = [_file(path, root) for path in run.files]
        actions.append(_action(run, root, own))
        files += own
    names = sorted({run.header["dataset"] for run in runs})
    crate = {
        "@id": "./",
        "@type": "Dataset",
        "name": "Neural ODEs trained and tested under every solver and step size",
        "description": "A record for each seed and test setting of each run, and its weights.",
        "conformsTo": {"@id": "https://w3id.org/ro/wfrun/process/0.5"},
        "license": {"@id": MIT},
        "datePublished": max((run.header.get("date", "") for run in runs), default=""),
        "citation": {"@id": PAPER["url"]},
        "hasPart": [{"@id": file["@id"]} for file in files],
        "mentions": [{"@id": action["@id"]} for action in actions],
    }
    about = {"about": {"@id": "./"}, "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"}}
    graph = [
        {"@id": CRATE, "@type": "CreativeWork", **about},
        crate,
        {
            "@id": "https://w3id.org/ro/wfrun/process/0.5",
            "@type": "CreativeWork",
            "name": "Process Run Crate",
            "version": "0.5",
        },
        {"@id": MIT, "@type": "CreativeWork", "name": "MIT License"},
        {"@id": PAPER["url"], "@type": "ScholarlyArticle", "name": PAPER["title"]},
        {
            "@id": "#nodecore",
            "@type": "SoftwareApplication",
            "name": "nodecore",
            "softwareVersion": version("nodecore"),
        },
        *({"@type": "Dataset", "@id": f"#{name}", **_data_set(name)} for name in names),
        *actions,
        *files,
    ]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}


def _action(run, root, files):
    """One training with its tests; a revision or machine of unknown origin stays in the record."""
    header = run.header
    name = run.path.relative_to(root).with_suffix("")
    ended = {"endTime": header["date"]} if header.get("date") else {}
    return {
        "@id": f"#{name}",
        "@type": "CreateAction",
        "name": f"Train and test {name}",
        "instrument": {"@id": "#nodecore"},
        "object": [{"@id": f"#{header['dataset']}"}],
        "result": [{"@id": file["@id"]} for file in files],
        **ended,
    }


def _file(path, root):
    name = path.relative_to(root).as_posix()
    return {"@id": name, "@type": "File", "encodingFormat": FORMATS[path.suffix]}


def results(table: pd.DataFrame) -> dict[str, Any]:
    """Table 1 (see scorecard.table1) with what its names mean."""
    names = {"low": "nfe_low", "middle": "nfe", "high": "nfe_high", "std": "accuracy_std"}
    names |= {"flow": "accuracy_exact_flow", "flow_std": "accuracy_exact_flow_std"}
    names |= {"nfe": "nfe_text"}
    rows = table.rename(columns=names).round(6)
    return {
        "paper": PAPER,
        "task": "classification by a neural ODE and a linear classifier",
        "datasets": {name: _data_set(name) for name in table["dataset"].unique()},
        "metrics": {
            "accuracy": "share of test samples that are right, here on CIFAR-10 of the first 1000; "
            "mean over the seeds that trained",
            "accuracy_std": "standard deviation over these seeds",
            "accuracy_exact_flow": "that of the same weights under the exact flow",
            "nfe_text": "evaluations as the table shows them; 'or more' where a grid ends at its "
            "critical step, so that nfe_high bounds nothing",
            "nfe_low, nfe, nfe_high": "evaluations of the vector field in a training iteration: "
            "bounds of a grid's critical step and their middle, else the seeds' least, mean, most",
        },
        "results": rows.astype(object).where(rows.notna(), None).to_dict("records"),
    }


def _data_set(name):
    protocol = PROTOCOLS[name]
    size = f"{protocol.n_train} training and {protocol.n_test} test samples"
    return {
        "name": DATASETS[name].label,
        "description": f"{size}, {DATASETS[name].n_classes} classes",
        "license": LICENCES.get(name, "MIT; made by nodecore"),
    }


def write(table: pd.DataFrame, root: Path = store.COMMITTED) -> None:
    """Write both files into `root`."""
    for name, content in ((CRATE, crate(root)), (RESULTS, results(table))):
        write_atomically(root / name, as_text(content).encode())


def as_text(content: dict[str, Any]) -> str:
    """JSON as it stands in the files."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
