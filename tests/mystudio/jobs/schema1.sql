PRAGMA application_id = 1836667732;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE counter (change INTEGER NOT NULL);
INSERT INTO "counter" VALUES(10);
CREATE TABLE dependency (
            job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
            other INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
            PRIMARY KEY (job, other)
        ) WITHOUT ROWID;
INSERT INTO "dependency" VALUES(2,1);
CREATE TABLE job (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            inputs TEXT NOT NULL,              -- JSON: name -> path
            out TEXT NOT NULL,
            options TEXT NOT NULL,             -- JSON
            title TEXT NOT NULL,
            light INTEGER NOT NULL,
            place REAL NOT NULL,               -- order in which waiting jobs start
            state TEXT NOT NULL,
            asked TEXT,                        -- state that a running job was asked to take
            note TEXT NOT NULL DEFAULT '',     -- why it waits, apart from other jobs
            not_before REAL NOT NULL DEFAULT 0,
            stage TEXT NOT NULL DEFAULT '',
            done INTEGER NOT NULL DEFAULT 0,
            total INTEGER NOT NULL DEFAULT 0,
            remaining REAL,                    -- s
            stage_remaining REAL,              -- s
            preview INTEGER NOT NULL DEFAULT 0, -- number of previews; 0 = there is none
            error TEXT NOT NULL DEFAULT '',
            worker TEXT NOT NULL DEFAULT '',
            tries INTEGER NOT NULL DEFAULT 0,
            crashes INTEGER NOT NULL DEFAULT 0, -- since it last got further
            added REAL NOT NULL,
            started REAL,
            ended REAL,
            beat REAL,
            spent REAL NOT NULL DEFAULT 0,
            change INTEGER NOT NULL
        );
INSERT INTO "job" VALUES(1,'scan','{"video": "me.mp4"}','me.scan','{"consent": "Ada Example"}','',0,1.0,'done',NULL,'',0.0,'',0,0,NULL,NULL,0,'','',1,0,1.79590349845572400089e+09,1795903498.46839,1.79590349847191357605e+09,NULL,29.5,4);
INSERT INTO "job" VALUES(2,'personalize','{"scan": "me.scan"}','me.avatar','{"recipe": "quick"}','for Bob',0,2.0,'failed',NULL,'',0.0,'tune',300,400,NULL,NULL,0,'memory ran out; close other programs','',1,0,1.79590349846740746499e+09,1.79590349847262644765e+09,1.79590349847560071944e+09,NULL,90.0,7);
CREATE TABLE pace (
            job INTEGER NOT NULL, position INTEGER NOT NULL, stage TEXT NOT NULL, kind TEXT NOT NULL,
            variant TEXT NOT NULL, machine TEXT NOT NULL, units INTEGER NOT NULL, seconds REAL NOT NULL,
            whole INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (job, stage)
        ) WITHOUT ROWID;
INSERT INTO "pace" VALUES(1,1,'images','scan','{}','computer/2',50,20.0,1);
INSERT INTO "pace" VALUES(1,0,'track','scan','{}','computer/2',100,9.5,1);
INSERT INTO "pace" VALUES(2,0,'tune','personalize','{"recipe": "quick"}','computer/2',400,90.0,0);
CREATE TABLE removed (id INTEGER PRIMARY KEY, change INTEGER NOT NULL);
INSERT INTO "removed" VALUES(3,10);
CREATE TABLE worker (
            token TEXT PRIMARY KEY, process INTEGER NOT NULL, host TEXT NOT NULL, started REAL NOT NULL,
            beat REAL NOT NULL
        );
CREATE INDEX job_by_change ON job (change);
CREATE INDEX job_by_state ON job (state, place);
CREATE INDEX dependency_by_other ON dependency (other);
CREATE INDEX pace_by_kind ON pace (kind, variant, machine, whole);
UPDATE sqlite_sequence SET seq = 3 WHERE name = 'job';
COMMIT;
