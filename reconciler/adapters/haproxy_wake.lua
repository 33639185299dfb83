-- Keeps a request for a service that is asleep until one of its servers is up, or the time is over.
--   http-request lua.reconciler_wake BACKEND MILLISECONDS if { nbsrv lt 1 }
--   tcp-request content lua.reconciler_wake BACKEND MILLISECONDS if { nbsrv lt 1 }   (within a longer inspect-delay)
-- It decides nothing: whatever is up afterwards gets the request, and HAProxy answers 503 when nothing is.
-- The fetch counts the servers that can be given a request now, and is a look into memory.

local STEP = 20 -- ms

local function now()
    local time = core.now()
    return time.sec * 1000 + time.usec // 1000
end

local function wake(txn, backend, patience)
    local over = now() + tonumber(patience)
    while txn.f:nbsrv(backend) < 1 and now() < over do
        core.msleep(STEP)
    end
end

core.register_action("reconciler_wake", { "tcp-req", "http-req" }, wake, 2)
