"""The keeper of a run: whether there is one to go on with, when it is written, and what is said where that fails.

Without a folder it keeps nothing, so that whoever trains need not ask. Builds on `folder`, `identity` and `state`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from jaxchain.batches import Begun
from jaxchain.checks import LARGEST, integer
from jaxchain.errors import warn
from jaxchain.resume.folder import Folder, Stored
from jaxchain.resume.identity import other_jax, unlike
from jaxchain.resume.signals import Ending, ending
from jaxchain.resume.state import again, arrays_of, marks, unfit
from jaxchain.show.escape import escaped

__all__ = ["Keeper"]


@dataclass
class Keeper:
    """What keeps a run.

    Attributes
    ----------
    folder
        Where; ``None``: nowhere.
    every
        After how many steps at least it is written.
    saved, tried
        The steps of the newest checkpoint, and of the last attempt at one.
    """

    folder: Folder | None
    every: int
    saved: int = 0
    tried: int = 0
    identity: dict[str, str] = field(default_factory=dict[str, str])
    found: Stored | None = None

    @classmethod
    def at(cls, checkpoint_dir: Any, every: Any, keep: Any) -> Keeper:
        """The keeper that the caller of `jaxchain.train.fit` asked for."""
        every = integer(
            "checkpoint_every", every, "after how many steps a checkpoint is written", least=1, most=LARGEST
        )
        keep = integer("keep", keep, "how many checkpoints are kept", least=1, most=LARGEST)
        return cls(None if checkpoint_dir is None else Folder.at(checkpoint_dir, keep), every)

    def begun(self, steps: int) -> Begun:
        """Where the run is that there is; at the beginning, where there is none.

        Raises
        ------
        ValueError
            If it has done more than ``steps``.

        Warns
        -----
        RuntimeWarning
            If a checkpoint is damaged, with the reason; the one before it is used.
        """
        self.found = None if self.folder is None else self.folder.newest()
        if self.found is None:
            return Begun()
        self.saved = self.tried = self.found.step
        if self.saved > steps:
            msg = f"The run in {self._place} has done {self.saved} steps, more than steps={steps}. Ask for as many at least, choose another checkpoint_dir, or delete it to begin anew."
            raise ValueError(msg)
        return Begun(self.saved, self.found.told["last"])

    def resumed(self, identity: dict[str, str], like: Any) -> Any:
        """The run that was found, as a tree like another; ``None`` where there is none.

        Raises
        ------
        ValueError
            If it is another run: the reason, and the way out.

        Warns
        -----
        RuntimeWarning
            If another version of JAX wrote it, which may round differently.
        """
        self.identity = identity
        if self.found is None:
            return None
        kept, stored = self.found.told["identity"], self.found
        reason = unfit(self.found.told["leaves"], marks(like)) or unlike(kept, identity)
        if reason is not None:
            msg = f"The run in {self._place} is not of this call: {reason}. Choose another checkpoint_dir, or delete it to begin anew."
            raise ValueError(msg)
        if (version := other_jax(kept)) is not None:
            warn(f"The checkpoint in {self._place} was written with JAX {version}, so that training goes on, but maybe not to the same bits.", RuntimeWarning)  # fmt: skip
        self.found = None  # its arrays are no longer needed
        return again(stored.arrays, like)

    def due(self, step: int) -> bool:
        """Whether the run at ``step`` is to be written."""
        return self.folder is not None and step - max(self.saved, self.tried) >= self.every

    def save(self, step: int, tree: Callable[[], Any], last: Callable[[], str], *, end: bool = False) -> None:
        """Write the run at ``step``, unless it is written already.

        Warns
        -----
        RuntimeWarning
            If that fails, with the reason: no loss to the training, which goes on.
        """
        if self.folder is None or step <= self.saved:
            return
        kept, self.tried = tree(), step
        told = {"identity": self.identity, "leaves": marks(kept), "last": last()}
        failed = self.folder.write(step, told, arrays_of(kept))
        if not failed:
            self.saved = step
            return
        after = (
            "What is trained is returned all the same"
            if end
            else f"Training goes on, and it is tried again {self.every} steps later"
        )
        before = f"the checkpoint of step {self.saved} is kept" if self.saved else "there is none before it"
        warn(f"The checkpoint of step {step} cannot be written to {self._place}: {failed}. {after}; {before}.", RuntimeWarning)  # fmt: skip

    def watching(self) -> AbstractContextManager[Ending]:
        """Notice SIGTERM meanwhile, where there is something to write then."""
        return nullcontext(Ending()) if self.folder is None else ending()

    def close(self) -> None:
        """Write no more."""
        if self.folder is not None:
            self.folder.close()

    @property
    def longest(self) -> int:
        """The most steps between two places where the run can be written."""
        return LARGEST if self.folder is None else self.every

    @property
    def _place(self) -> str:
        assert self.folder is not None
        return escaped(str(self.folder.path))
