"""The explorers' numbers, computed in the browser, against torch and exact arithmetic."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from nodecore.analysis.crossings import find_crossings, refined_path
from nodecore.data.seeding import make_generator
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fields import Conv1dField, LinearHead, MLPField
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.solution import SolveError
from nodecore.ode.tableaus import TABLEAUS
from nodecore.pages.explorers.bundle import read_source
from nodecore.pages.explorers.packing import Model, pack_stack, pack_tableau

EMBEDDED = [name for name, tableau in TABLEAUS.items() if tableau.b_embedded]
POINTS = torch.randn(11, 2, generator=make_generator(0, "initialisation"), dtype=torch.float64)


@pytest.fixture(scope="module")
def core(browser):
    """Run code that sees the core's exports and the arguments by name: core(code, **arguments)."""
    with browser.new_context() as context:
        yield open_core(context)


def open_core(context):
    """The modules imported as they are, by a page of `context`."""
    page = context.new_page()

    def serve(route):
        name = route.request.url.split("/", 3)[3]
        body = read_source(name) if name.endswith(".js") else ""
        kind = "text/javascript" if name.endswith(".js") else "text/html"
        route.fulfill(body=body, content_type=kind)

    page.route("http://core.test/**", serve)
    page.goto("http://core.test/index.html")

    def run(code, **arguments):
        imports = "".join(f"...await import('/{module}.js')," for module in MODULES)
        body = f"(({{{', '.join(USED)}}}) => {{ {code} }})({{ {imports} }})"
        return page.evaluate(f"async ({{{', '.join(arguments)}}}) => {body}", arguments)

    return run


MODULES = [f"compute/{name}" for name in ("layers", "fixed", "adaptive", "crossings", "models")]
MODULES += ["ui/dom"]
USED = [
    *("makeStack", "evaluateAt", "classify", "solveFixed", "solveAdaptive"),
    *("findCrossings", "finiteTrajectories", "readData", "fixed"),
]
FIELD = "const field = makeStack(spec, Float32Array.from(numbers));"


def packed(module, member=0):
    stack = pack_stack("field", module)
    return {"spec": stack.spec, "numbers": stack.numbers[member].tolist()}


def flat(values):
    return values.flatten().tolist()


def generators(n=2):
    return [make_generator(seed, "initialisation") for seed in range(n)]


def fields():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))
    return {
        "dense": MLPField(2, 48, generators=generators()),
        "odd widths": MLPField(2, 5, generators=generators()),
        "convolution": Conv1dField(2, 32, generators=generators()),
        "convolution of 5 positions": Conv1dField(5, 6, generators=generators()),
        "plain torch": plain.requires_grad_(False),
    }


FIELDS = fields()


def in_float64(field):
    """f(t, z) on z (1, n, dim) of the second member, the one that `packed` is asked for."""
    double = copy.deepcopy(field).double()
    if isinstance(field, nn.Sequential):
        return 0, lambda t, z: double(z)
    for parameter in double.parameters():
        parameter.data = parameter.data[1:]
    return 1, double.requires_grad_(False)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_has_torchs_values(core, name):
    member, f = in_float64(FIELDS[name])
    dim = 5 if "5" in name else 2
    z = torch.randn(11, dim, generator=make_generator(1, "initialisation"), dtype=torch.float64)
    values = core(
        FIELD + "return [...evaluateAt(field, Float64Array.from(z))];",
        **packed(FIELDS[name], member),
        z=flat(z),
    )
    np.testing.assert_allclose(values, flat(f(0.0, z[None])), rtol=0, atol=1e-12)


def test_without_vectors_plain_javascript_has_the_same_values(browser, core):
    code = FIELD + "return [...evaluateAt(field, Float64Array.from(z))];"
    with browser.new_context() as context:
        context.add_init_script("WebAssembly.Module = () => { throw new Error('no vectors'); };")
        plain = open_core(context)
        for name in ("plain torch", "convolution"):
            arguments = {**packed(FIELDS[name]), "z": flat(POINTS)}
            values = core(code, **arguments), plain(code, **arguments)
            np.testing.assert_allclose(*values, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n_steps", [1, 3, 32])
@pytest.mark.parametrize("solver", TABLEAUS)
def test_fixed_steps_end_where_torchs_do(core, solver, n_steps):
    member, f = in_float64(FIELDS["dense"])
    path = solve_fixed(f, POINTS[None], solver, n_steps=n_steps, path=True).path[:, 0]
    code = "[...solveFixed(field, tableau, Float64Array.from(z), K, { path })]"
    ends, states = core(
        FIELD + f"let path = false; const ends = {code}; path = true; return [ends, {code}];",
        **packed(FIELDS["dense"], member),
        tableau=pack_tableau(TABLEAUS[solver]),
        z=flat(POINTS),
        K=n_steps,
    )
    np.testing.assert_allclose(ends, flat(path[-1]), rtol=0, atol=1e-10)
    np.testing.assert_allclose(states, flat(path.transpose(0, 1)), rtol=0, atol=1e-10)


def test_chords_of_a_step_are_partial_steps(core):
    member, f = in_float64(FIELDS["convolution"])
    path = refined_path(f, POINTS[None], "rk4", n_steps=3, substeps=4)[:, 0]
    states = core(
        FIELD + "return [...solveFixed(field, tableau, Float64Array.from(z), 3, {substeps: 4})];",
        **packed(FIELDS["convolution"], member),
        tableau=pack_tableau(TABLEAUS["rk4"]),
        z=flat(POINTS),
    )
    np.testing.assert_allclose(states, flat(path.transpose(0, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tolerance", [1.0, 1e-2, 1e-6])
@pytest.mark.parametrize("solver", EMBEDDED)
def test_adaptive_steps_are_those_of_nodecore(core, solver, tolerance):
    member, f = in_float64(FIELDS["dense"])
    options = {"rtol": tolerance, "atol": tolerance, "path": True}
    wanted = solve_adaptive(f, POINTS[None], solver, **options)
    found = core(
        FIELD + "const s = solveAdaptive(field, tableau, Float64Array.from(z), tolerance);"
        "return {...s, z: [...s.z], path: [...s.path]};",
        **packed(FIELDS["dense"], member),
        tableau=pack_tableau(TABLEAUS[solver]),
        z=flat(POINTS),
        tolerance=tolerance,
    )
    accepted = [attempt["accepted"] for attempt in found["attempts"]]
    assert (accepted.count(True), accepted.count(False)) == (wanted.n_accepted, wanted.n_rejected)
    assert found["nfe"] == wanted.nfe
    np.testing.assert_allclose(found["ts"], wanted.ts.tolist(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["path"], flat(wanted.path[:, 0].transpose(0, 1)), atol=1e-10)


def test_an_adaptive_solve_that_cannot_go_on_says_so(core):
    wild = nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)
    wild[0].weight.data = torch.eye(2) * 1e4
    with pytest.raises(SolveError, match="not finite") as raised:
        solve_adaptive(lambda t, z: wild.double()(z), POINTS[None], "dopri5", rtol=1e-3, atol=1e-3)
    [moment] = re.findall(r"from (t = 0\.\d+);", str(raised.value))
    told = core(
        FIELD + "try { solveAdaptive(field, tableau, Float64Array.from(z), 1e-3); }"
        "catch (error) { return error.message; }",
        **packed(wild.float()),
        tableau=pack_tableau(TABLEAUS["dopri5"]),
        z=flat(POINTS),
    )
    assert told == f"the state is not finite after {moment}"


def test_classes_are_torchs_with_ties_and_nan(core):
    head = LinearHead(2, 3, generators=generators())
    states = torch.cat([POINTS, torch.tensor([[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])])
    double = copy.deepcopy(head).double()
    wanted = double(states.expand(2, -1, -1)).argmax(-1)[1]
    classes = core(
        FIELD + "return [...classify(field, Float64Array.from(z))];",
        **packed(head, 1),
        z=flat(states),
    )
    assert classes == wanted.tolist()


def test_chance_is_the_share_of_the_largest_class(core):
    x, y = POINTS[:5], torch.tensor([0, 2, 2, 1, 2])
    head = nn.Linear(2, 3)
    model = Model(nn.Linear(2, 2), head, x.float(), y)
    data = {"datasets": [model.dataset_data(torch.arange(2))], "models": [model.model_data()]}
    assert core("return readData(data).datasets[0].chance;", data=data) == 0.6


@pytest.mark.parametrize("decimals", range(5))
def test_numbers_are_written_as_python_writes_them(core, decimals):
    """Also those halfway between two, such as 6.25 %, 8 right in a batch of 128."""
    random = np.random.default_rng(0)
    values = [*(100 * k / 128 for k in range(129)), *(k / 2**5 for k in range(33)), 0.15, 2.675]
    values += [*random.uniform(-3, 3, 200), *(random.integers(-800, 800, 200) / 2**4)]
    code = "return values.map((value) => fixed(value, decimals));"
    written = core(code, values=[float(value) for value in values], decimals=decimals)
    assert written == [f"{value:.{decimals}f}" for value in values]


# --- crossings ----------------------------------------------------------------------------------

COUNT = (
    "return paths.map(({path, nPoints}) => { const c = findCrossings(Float64Array.from(path), "
    "nPoints); return [c.between, c.pairs, c.points.length, c.points]; });"
)


def crossing_cases():
    """Paths (n_points, N, 2): corners on a coarse grid, walks of any size, near misses."""
    random = np.random.default_rng(0)
    sizes = [(n, m) for n in (2, 4, 9) for m in (1, 3, 5)] * 5
    grid = [random.integers(-3, 4, (*size, 2)) for size in sizes]
    walks = [random.normal(size=(n, 6, 2)).cumsum(0) for n in (17, 40, 80)]
    walks += [scale * walks[1][:9] for scale in (1e-200, 1e-160, 1e150)]
    near = [
        0.1 * random.integers(0, 4, (6, 4, 2)) + random.integers(-2, 3, (6, 4, 2)) * 2.0**-54
        for _ in range(30)
    ]
    return [np.asarray(path, dtype=float) for path in (*grid, *walks)], near


def test_crossings_are_those_of_nodecore(core):
    clear, near = crossing_cases()
    paths = [*clear, *near]
    arguments = [{"path": p.swapaxes(0, 1).ravel().tolist(), "nPoints": len(p)} for p in paths]
    found = core(COUNT, paths=arguments)
    total = 0
    for path, (between, pairs, n, points) in zip(paths, found, strict=True):
        wanted = find_crossings(path)
        assert (between, pairs, n) == (wanted.n_between, len(wanted.pairs), len(wanted.points))
        total += n
        if n and any(path is one for one in clear):  # nearly parallel lines meet anywhere
            points, wanted = (np.sort(p, axis=0) for p in (points, wanted.points))
            np.testing.assert_allclose(points, wanted, rtol=1e-9, atol=1e-12 * np.abs(path).max())
    assert total > 300


def test_trajectories_that_overflow_are_left_out(core):
    path = np.zeros((3, 2, 2))
    path[:, 1] = np.inf
    code = (
        "const { path: kept, leftOut } = finiteTrajectories(Float64Array.from(path), 3);"
        "return [leftOut, kept.length];"
    )
    infinite = [x if np.isfinite(x) else float("inf") for x in path.swapaxes(0, 1).ravel()]
    assert core(code, path=infinite) == [1, 6]
