-- What an operation's story is drawn from: written with each step's outcome.

ALTER TABLE calls ADD COLUMN outcome TEXT;    -- NULL: it went well
ALTER TABLE calls ADD COLUMN exchange TEXT;   -- JSON: a request to Cinder and its answer, masked
