"""One server of an ensemble: looks for a leader, leads or learns, and looks again.

    LOOKING -> LEADING | FOLLOWING | OBSERVING -> LOOKING

`step(input, now_ms)` is all a driver calls; it carries out the outputs in their order and hands in
what comes of them. Between two roles the server waits until its disk has answered everything: a
vote must name what the server really holds. What comes late for a role that has ended is ignored.

Reads no clock, no file, no socket and no chance. The driver's duties: docs/zab.md.
"""

from __future__ import annotations

from zkd.config.servers import Membership
from zkd.zab import catch_up as learning
from zkd.zab import election as electing
from zkd.zab import establish as leading
from zkd.zab import inputs as i
from zkd.zab import invariants
from zkd.zab.election import Election
from zkd.zab.faults import DriverFault
from zkd.zab.history import History
from zkd.zab.leader import Leader
from zkd.zab.learner import Learner
from zkd.zab.observer_master import ObserverMaster
from zkd.zab.outputs import (
    ConfigurationActivated,
    ConnectAll,
    Halt,
    Notify,
    Output,
    RoleChanged,
    Warned,
)
from zkd.zab.settings import Settings, Standing
from zkd.zab.state import State
from zkd.zab.votes import ServerState


class Peer:
    def __init__(
        self,
        standing: Standing,
        settings: Settings,
        history: History,
        committed: Membership,
        last_seen: Membership | None = None,
    ) -> None:
        self.state = State(standing, settings, history, committed, last_seen)
        self.election = Election(standing.sid, committed, last_seen, settings.election)
        self.role: Leader | Learner | None = None
        self.halted: str | None = None
        self._configured = self.state.committed
        self._established = False

    # ---- seen from outside

    @property
    def server_state(self) -> ServerState:
        if isinstance(self.role, Learner):
            return self.role.role
        return ServerState.LEADING if self.role is not None else ServerState.LOOKING

    @property
    def serving(self) -> bool:
        role = self.role
        if isinstance(role, Leader):
            return role.phase is leading.Phase.BROADCAST
        return role is not None and role.phase is learning.Phase.BROADCAST

    @property
    def next_zxid(self) -> int | None:
        """What the next transaction gets; None unless this server leads and serves."""
        role = self.role
        if isinstance(role, Leader) and role.phase is leading.Phase.BROADCAST:
            return role.proposed + 1
        return None

    @property
    def lease_ms(self) -> int | None:
        """Until when clients may be served without hearing of others again; None: not at all.

        A time of the driver's clock, in the past if nobody was heard of for too long.
        """
        return self.role.lease_ms() if self.role is not None and self.serving else None

    @property
    def deadline_ms(self) -> int | None:
        """When the election wants its next `Tick`; None: the regular one will do."""
        return self.election.deadline_ms

    # ---- steps

    def step(self, event: i.Input, now_ms: int) -> list[Output]:
        """What is to be done now. Time never goes back, whatever `now_ms` says."""
        if self.halted is not None:
            return []
        state = self.state
        state.now_ms = max(state.now_ms, now_ms)
        state.out = []
        before = invariants.seen(state)
        self._dispatch(event)
        self._turn()
        invariants.check(state, self.role, before)
        return state.out

    def _dispatch(self, event: i.Input) -> None:
        role, state = self.role, self.state
        if isinstance(event, i.Received):
            if role is not None:
                role.received(event.conn, event.packets)
        elif isinstance(event, i.Appended):
            state.appended(event.upto)
            if role is not None:
                role.appended()
        elif isinstance(event, i.Propose):
            self._leader().propose(event.txns)
        elif isinstance(event, i.Tick):
            if role is not None:
                role.tick()
            self._elect(self.election.tick(state.now_ms, event.delivered))
        elif isinstance(event, i.Notified):
            heard = self.election.received(event.from_sid, event.notification, state.now_ms)
            self._elect(heard)
        elif isinstance(event, i.Oracle):
            self._heard_oracle(event.said)
        elif isinstance(event, i.Configured):
            state.configure(event.committed, event.last_seen)
        elif isinstance(event, i.Disconnected):
            if isinstance(role, Leader):
                role.disconnected(event.conn)
            elif role is not None:
                role.disconnected(event.conn, event.reason)
        elif isinstance(event, i.Sync):
            self._sync(event)
        elif not self._dispatch_disk(event):
            self._dispatch_role(event)

    def _dispatch_disk(self, event: i.Input) -> bool:
        role, state = self.role, self.state
        if isinstance(event, i.EpochsSaved):
            state.epochs_saved(event.accepted, event.current)
            if role is not None:
                role.epochs_saved()
        elif isinstance(event, i.Truncated):
            state.truncated(event.zxid)
        elif isinstance(event, i.SnapshotReceived):
            state.snapshot_received(event.zxid)
            if isinstance(role, Learner):
                role.snapshot_received(event.zxid)
        elif isinstance(event, i.SnapshotInstalled):
            state.installed(event.zxid)
            if role is not None:
                role.epochs_saved()
        elif isinstance(event, i.SnapshotFailed):
            state.snapshot_received(None)
            if isinstance(role, Learner):
                role.snapshot_failed(event.reason)
        else:
            return False
        return True

    def _dispatch_role(self, event: i.Input) -> None:
        role = self.role
        if isinstance(role, Leader):
            if isinstance(event, i.Accepted):
                role.accepted(event.conn)
            elif isinstance(event, i.SnapshotStarted):
                role.snapshot_started(event.conn, event.zxid)
            elif isinstance(event, i.Sent):
                role.sent(event.conn)
            elif isinstance(event, i.LearnerSync):
                role.learner_sync(event.conn)
            elif isinstance(event, i.RevalidateAnswer):
                role.revalidate_answer(event.conn, event.session, event.valid)
        elif isinstance(role, Learner):
            if isinstance(event, i.Connected):
                role.connected(event.conn)
            elif isinstance(event, i.ConnectFailed):
                role.connect_failed(event.reason)
            elif isinstance(event, i.Forward):
                role.forward(event.requests)
            elif isinstance(event, i.Revalidate):
                role.revalidate(event.session, event.timeout_ms)
            elif role.master is not None:
                self._dispatch_master(role.master, event)
        elif isinstance(event, i.Forward | i.Revalidate):
            raise DriverFault("a request while this server looks for a leader")

    @staticmethod
    def _dispatch_master(master: ObserverMaster, event: i.Input) -> None:
        if isinstance(event, i.Accepted):
            master.accepted(event.conn)
        elif isinstance(event, i.SnapshotStarted):
            master.snapshot_started(event.conn, event.zxid)
        elif isinstance(event, i.Sent):
            master.sent(event.conn)

    def _heard_oracle(self, said: str | None) -> None:
        self.state.oracle = said
        self.election.hear_oracle(said)
        if isinstance(self.role, Leader):
            self.role.heard_oracle()

    def _leader(self) -> Leader:
        if not isinstance(self.role, Leader):
            raise DriverFault("only a leader does that")
        return self.role

    def _sync(self, event: i.Sync) -> None:
        if isinstance(self.role, Leader):
            self.role.sync(event.tag)
        elif self.role is not None:
            self.role.sync(event.tag, event.data, event.authinfo)
        else:
            raise DriverFault("a sync while this server looks for a leader")

    # ---- between roles

    def _turn(self) -> None:
        """Leave a role that is over; look for a leader when the disk has answered everything."""
        state, role = self.state, self.role
        if state.committed is not self._configured:
            self._configured = state.committed
            if self.election.configured(state.committed, state.last_seen):
                state.out.append(ConfigurationActivated(state.committed, restart_election=True))
        if role is not None and role.over is not None:
            state.out.append(Warned(f"{self.server_state.name} no more: {role.over}"))
            self.role = None
            if isinstance(role, Learner) and role.halt is not None:
                self.halted = role.halt
                state.out.append(Halt(role.halt))
                return
            state.out.append(RoleChanged(ServerState.LOOKING))
        if self.role is None and not self.election.searching and state.settled:
            self._look()
        if self.serving and not self._established:
            assert self.role is not None
            self.election.established(self.role.epoch)
        self._established = self.serving

    def _look(self) -> None:
        state = self.state
        self._elect(self.election.start(state.last_zxid, state.current, state.now_ms))

    def _elect(self, outputs: list[electing.Output]) -> None:
        out, state = self.state.out, self.state
        for output in outputs:
            if isinstance(output, electing.SendNotification):
                out.append(Notify(output.to_sid, output.notification))
            elif isinstance(output, electing.ConnectAll):
                out.append(ConnectAll())
            elif isinstance(output, electing.Decided):
                self._decided(output)
            elif isinstance(output, electing.NewerConfiguration):
                state.configure(output.membership, state.last_seen)
                self._configured = state.committed
                out.append(ConfigurationActivated(output.membership, output.restart))
            elif isinstance(output, electing.SeenLooking):
                if isinstance(self.role, Leader):
                    self.role.seen_looking(output.sid)
            elif isinstance(output, electing.UnusableConfiguration):
                out.append(Warned(f"server {output.from_sid}: {output.why}"))

    def _decided(self, decided: electing.Decided) -> None:
        state = self.state
        leader = decided.vote.leader
        state.out.append(RoleChanged(decided.state, leader))
        if decided.state is ServerState.LEADING:
            self.role = Leader(state)
        else:
            self.role = Learner(state, leader, observer=decided.state is ServerState.OBSERVING)
