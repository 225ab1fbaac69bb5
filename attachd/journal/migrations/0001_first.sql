-- Operations, what happened to their steps, and the attachments they are about.

CREATE TABLE operations (
    operation_id  TEXT PRIMARY KEY,
    request_id    TEXT NOT NULL UNIQUE,
    kind          TEXT NOT NULL,
    state         TEXT NOT NULL,
    guest         TEXT NOT NULL,              -- as the caller named it
    volume        TEXT NOT NULL,              -- as the caller named it
    device        TEXT,
    bus           TEXT NOT NULL,
    mode          TEXT NOT NULL,
    override_nova INTEGER NOT NULL,
    guest_id      TEXT,                       -- the busy mark, once the names are resolved
    volume_id     TEXT,
    guest_name    TEXT,
    volume_name   TEXT,
    record_id     TEXT REFERENCES attachments (record_id),
    problem       TEXT,                       -- JSON
    waiting_for   TEXT,                       -- the world that was out of reach
    created_at    TEXT NOT NULL,
    accepted      REAL NOT NULL,              -- seconds since boot, at created_at
    started_at    TEXT,
    finished_at   TEXT
) STRICT;

CREATE INDEX operations_by_state ON operations (state);
CREATE INDEX operations_by_volume ON operations (volume_id);
CREATE INDEX operations_by_record ON operations (record_id);

CREATE VIEW open_operations AS
    SELECT * FROM operations WHERE state IN ('accepted', 'running', 'needs-attention');

CREATE TABLE events (
    operation_id TEXT NOT NULL REFERENCES operations (operation_id),
    seq          INTEGER NOT NULL,
    step         TEXT NOT NULL,               -- '' where it concerns all steps
    happening    TEXT NOT NULL,
    reason       TEXT NOT NULL,
    problem      TEXT,                        -- JSON
    at           TEXT NOT NULL,               -- wall clock, UTC
    uptime       REAL NOT NULL,               -- seconds since boot: durations survive clock jumps
    boot_id      TEXT NOT NULL,
    PRIMARY KEY (operation_id, seq)
) STRICT, WITHOUT ROWID;

-- What the operation asked of the outer libraries; written when it rests.
CREATE TABLE calls (
    operation_id TEXT NOT NULL REFERENCES operations (operation_id),
    library      TEXT NOT NULL,
    name         TEXT NOT NULL,
    started      REAL NOT NULL,               -- seconds since boot
    ended        REAL NOT NULL
) STRICT;

CREATE INDEX calls_by_operation ON calls (operation_id, started);

CREATE TABLE attachments (
    record_id            TEXT PRIMARY KEY,
    operation_id         TEXT NOT NULL,       -- the latest operation about it
    state                TEXT NOT NULL,
    volume_id            TEXT NOT NULL,
    volume_name          TEXT NOT NULL,
    guest_id             TEXT NOT NULL,
    guest_name           TEXT NOT NULL,
    instance_id          TEXT NOT NULL,
    device               TEXT NOT NULL,
    bus                  TEXT NOT NULL,
    mode                 TEXT NOT NULL,
    size_bytes           INTEGER NOT NULL,
    attachment_id        TEXT,
    prior_attachment_ids TEXT NOT NULL,       -- JSON
    connection           TEXT,                -- JSON, without secrets
    host_path            TEXT,
    wwn                  TEXT,
    shared_targets       INTEGER,
    service_uuid         TEXT,
    unplug_pending       INTEGER NOT NULL,
    created_at           TEXT NOT NULL,
    updated_at           TEXT NOT NULL
) STRICT;

-- One name a disk in a guest, one attachment a volume and guest: kept here, since Cinder lets one
-- instance reserve a volume again and again.
CREATE UNIQUE INDEX live_device ON attachments (guest_id, device) WHERE state != 'detached';
CREATE UNIQUE INDEX live_volume ON attachments (guest_id, volume_id) WHERE state != 'detached';
CREATE INDEX attachments_by_cinder ON attachments (attachment_id);
