-- What an operation's story is drawn from: written with each step's outcome.

ALTER TABLE calls ADD COLUMN outcome TEXT;    -- NULL: it went well
ALTER TABLE calls ADD COLUMN exchange TEXT;   -- JSON: a request to Cinder and its answer, masked

-- Few have one: only the latest operations keep them.
CREATE INDEX calls_with_exchange ON calls (operation_id) WHERE exchange IS NOT NULL;
