"""The optimiser's side of a search: asks it for points and tells it how they ended.

The journal is Optuna's own file, so `optuna-dashboard journal.log` opens it as it is.  It has one
writer, the controller that holds the search's lease, and it can be thrown away: whatever does not
agree with the ledger is made anew from the ledger and the runs.  Knows no executor.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import metrics
from harness.config import canonical_json
from harness.config.searchspace import (
    Asha,
    Choice,
    Dimension,
    Hyperband,
    Integers,
    Median,
    Search,
    Uniform,
)
from harness.seeding import derive_seed
from harness.store.record import Store
from harness.store.trials import TELLING, Ledger, Outcome, Trial, check_same, looks

if TYPE_CHECKING:
    import optuna

_DEFINITION = "definition"
_SAMPLER_SEED = "sampler seed"
_RUN = "run"


class Study:
    """The study of one search, in step with its ledger from the moment it is opened.

    Args:
        definition: as in the ledger; SweepError, with a diff, if the journal has another one.
        samples: budget of a run, in samples.
    """

    def __init__(
        self,
        name: str,
        search: Search,
        ledger: Ledger,
        store: Store,
        definition: Mapping[str, Any],
        samples: int,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._name, self._search, self._store = name, search, store
        self._definition, self._samples = dict(definition), samples
        self._distributions = {p: _distribution(d) for p, d in search.space.items()}
        self._asked: dict[int, optuna.Trial] = {}
        self._reported: dict[int, set[int]] = {}
        ledger.folder.mkdir(parents=True, exist_ok=True)
        _mend(ledger.journal_file)
        self._study = self._open(ledger)
        self._reconcile(ledger)
        with _stable():
            self._study.sampler = self._sampler(len(self._study.get_trials(deepcopy=False)))
        known = len(self._study.get_trials(deepcopy=False))
        self.untold = {number: self._completed(number) for number in range(len(ledger), known)}
        """Number -> point of the trials that were asked for and never came into the ledger."""

    # ---------------------------------------------------------------- asking and telling

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Number and point of a new trial, as the sampler has it."""
        trial = self._study.ask(self._distributions)
        self._asked[trial.number] = trial
        return trial.number, self._decoded(trial.params)

    def insert(self, point: Mapping[str, Any], key: str | None) -> int:
        """Number of a new trial with this very point, and its run if there can be one."""
        from optuna.trial import TrialState, create_trial

        running = create_trial(
            state=TrialState.RUNNING,
            params={path: self._encoded(path, value) for path, value in point.items()},
            distributions=dict(self._distributions),
            user_attrs={} if key is None else {_RUN: key},
        )
        self._study.add_trial(running)
        return len(self._study.get_trials(deepcopy=False)) - 1

    def note(self, number: int, key: str) -> None:
        """Note the run of a trial that was asked for, for those who open the study elsewhere."""
        if number in self._asked:
            self._asked[number].set_user_attr(_RUN, key)

    def report(self, number: int, value: float, samples_seen: int) -> bool:
        """Report the objective at a rung; whether the trial shall be stopped there.

        A second report of the same rung, by a run that went through it again, is nothing new.
        """
        seen = self._reported.setdefault(number, set())
        if samples_seen in seen:
            return False
        seen.add(samples_seen)
        trial = self._trial(number)
        trial.report(value, samples_seen)
        return bool(trial.should_prune())

    def tell(self, trial: Trial) -> None:
        """How a trial ended.

        One that diverged is told as pruned, which is worse than whatever finished, so that the
        sampler stays away from there; it gets no number.
        """
        from optuna.trial import TrialState

        single = len(self._search.goals) == 1
        if trial.outcome is Outcome.COMPLETE:
            self._study.tell(trial.number, list(trial.values or ()))
        elif trial.outcome is Outcome.PRUNED or (single and trial.failure in TELLING):
            self._study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self._study.tell(trial.number, state=TrialState.FAIL)
        self._asked.pop(trial.number, None)
        self._reported.pop(trial.number, None)

    def _trial(self, number: int) -> optuna.Trial:
        """The trial as it can be worked on, though another process or `insert` made it."""
        from optuna.trial import Trial as OptunaTrial

        if number not in self._asked:
            frozen = self._study.get_trials(deepcopy=False)[number]
            self._asked[number] = OptunaTrial(self._study, frozen._trial_id)
        return self._asked[number]

    # ---------------------------------------------------------------- values

    def _encoded(self, path: str, value: Any) -> Any:
        dimension = self._search.space[path]
        if isinstance(dimension, Choice):
            return _category(value)
        return float(value) if isinstance(dimension, Uniform) else int(value)

    def _decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        point = {}
        for path, dimension in self._search.space.items():
            value = params[path]
            if isinstance(dimension, Choice):
                value = next(o for o in dimension.options if _category(o) == value)
            point[path] = value
        return point

    # ---------------------------------------------------------------- opening

    def _open(self, ledger: Ledger) -> optuna.Study:
        import optuna
        from optuna.storages import JournalStorage

        from harness.search.journal import Journal

        try:
            storage = JournalStorage(Journal(ledger.journal_file))
        except (ValueError, KeyError):  # what is there is no journal, or part of one is gone
            _set_aside(ledger.journal_file)
            storage = JournalStorage(Journal(ledger.journal_file))
        study = optuna.create_study(
            storage=storage,
            study_name=self._name,
            directions=[
                "maximize" if metrics.higher_is_better(goal) else "minimize"
                for goal in self._search.goals
            ],
            load_if_exists=True,
        )
        attributes = study.user_attrs
        if _DEFINITION in attributes:
            check_same(attributes[_DEFINITION], self._definition, ledger.journal_file)
        else:
            study.set_user_attr(_DEFINITION, self._definition)
            study.set_user_attr(
                _SAMPLER_SEED, derive_seed("study", self._search.seed, len(ledger)) % 2**31
            )
            with _stable():
                study.set_metric_names(list(self._search.goals))
        study.sampler = optuna.samplers.RandomSampler(seed=0)  # while old trials are told
        study.pruner = self._pruner()
        return study

    def _reconcile(self, ledger: Ledger) -> None:
        """Have the study say what the ledger says, from the beginning if need be."""
        if not self._agrees(ledger):
            _set_aside(ledger.journal_file)
            self._study = self._open(ledger)
            for trial in ledger:
                self._replay(trial)
        told = self._study.get_trials(deepcopy=False)
        for trial in ledger:
            if trial.over and not told[trial.number].state.is_finished():
                self.tell(trial)
            elif not trial.over:
                self._reported[trial.number] = set(told[trial.number].intermediate_values)

    def _agrees(self, ledger: Ledger) -> bool:
        """Whether the journal knows every trial of the ledger, and no more than it should."""
        known = self._study.get_trials(deepcopy=False)
        if len(known) < len(ledger) or any(t.state.is_finished() for t in known[len(ledger) :]):
            return False
        for trial, other in zip(ledger, known, strict=False):
            point = {path: self._encoded(path, value) for path, value in trial.point.items()}
            if canonical_json(point) != canonical_json(other.params):
                return False
            if not trial.over and other.state.is_finished():
                return False
        return True

    def _replay(self, trial: Trial) -> None:
        """Tell the study again what the ledger and the run say; verdicts were acted on before."""
        self.insert(trial.point, trial.key)
        if self._search.pruner is not None and trial.outcome is not Outcome.REPEAT:
            goal = self._search.goals[0]
            for look in looks(self._store.run_dir(trial.key)):
                if not trial.over or look.samples_seen <= trial.samples_seen:
                    self.report(trial.number, look.value_of(goal), look.samples_seen)
        if trial.over:
            self.tell(trial)

    def _completed(self, number: int) -> dict[str, Any]:
        """The point of a trial whose asking was cut off: what is missing is asked for now."""
        trial = self._trial(number)
        for path, dimension in self._search.space.items():
            _suggest(trial, path, dimension)
        return self._decoded(trial.params)

    # ---------------------------------------------------------------- samplers and pruners

    def _sampler(self, count: int) -> optuna.samplers.BaseSampler:
        """The sampler after `count` trials, so seeded that no command repeats another's draws.

        A quasi-random sequence is the study's: it goes on where it was.
        """
        from optuna import samplers

        seed = derive_seed("sampler", self._search.seed, count) % 2**31
        if self._search.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self._search.sampler == "quasi_random":
            sequence = self._study.user_attrs[_SAMPLER_SEED]
            return samplers.QMCSampler(
                scramble=True, seed=sequence, warn_independent_sampling=False
            )
        if self._search.sampler == "gp":
            return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        if self._search.sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=self._population())
        return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def _population(self) -> int:
        """A fifth of the trials, so that there are generations to speak of."""
        return min(50, max(4, (self._search.trials or 100) // 5))

    def _pruner(self) -> optuna.pruners.BasePruner:
        from optuna import pruners

        pruner = self._search.pruner
        if isinstance(pruner, Asha):
            return pruners.SuccessiveHalvingPruner(
                min_resource=pruner.first, reduction_factor=pruner.reduction
            )
        if isinstance(pruner, Hyperband):
            return pruners.HyperbandPruner(
                min_resource=pruner.first,
                max_resource=self._samples,
                reduction_factor=pruner.reduction,
            )
        if isinstance(pruner, Median):
            return pruners.MedianPruner(
                n_startup_trials=pruner.startup, interval_steps=pruner.every
            )
        return pruners.NopPruner()


@contextmanager
def _stable() -> Iterator[None]:
    """What Optuna marks as experimental has been so for years, and a user cannot act on it."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _distribution(dimension: Dimension) -> Any:
    from optuna import distributions

    if isinstance(dimension, Uniform):
        return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, Integers):
        return distributions.IntDistribution(
            dimension.low, dimension.high, step=dimension.step, log=dimension.log
        )
    return distributions.CategoricalDistribution([_category(o) for o in dimension.options])


def _suggest(trial: optuna.Trial, path: str, dimension: Dimension) -> None:
    if isinstance(dimension, Uniform):
        trial.suggest_float(path, dimension.low, dimension.high, log=dimension.log)
    elif isinstance(dimension, Integers):
        step, log = dimension.step, dimension.log
        trial.suggest_int(path, dimension.low, dimension.high, step=step, log=log)
    else:
        trial.suggest_categorical(path, [_category(option) for option in dimension.options])


def _category(option: Any) -> str | int | float | bool | None:
    """An option as the study holds it: lists and the like as their JSON."""
    plain = option is None or isinstance(option, (str, int, float, bool))
    return option if plain else canonical_json(option)


# --------------------------------------------------------------------------- the journal's file


def _mend(file: Path) -> None:
    """Cut off the line that a killed controller did not finish, and its lock.

    The search's lease is held, so nobody else writes.
    """
    file.with_name(file.name + ".lock").unlink(missing_ok=True)
    if not file.exists():
        return
    with file.open("r+b") as journal:
        data = journal.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            journal.truncate(whole)


def _set_aside(file: Path) -> None:
    """Keep a journal that cannot be used beside the one that takes its place."""
    numbers = range(1, 10_000)
    free = next(n for n in numbers if not file.with_name(f"journal-{n}.log").exists())
    file.rename(file.with_name(f"journal-{free}.log"))
