-- The request of a wrk run and its one line of results. BODY names a file, HEADERS is "A: b|C: d".
local file = assert(io.open(os.getenv("BODY")))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/json"
for header in string.gmatch(os.getenv("HEADERS") or "", "[^|]+") do
  local name, value = header:match("^([^:]+):%s*(.*)$")
  wrk.headers[name] = value
end

done = function(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    "RESULT answers=%d refused=%d broken=%d rate=%.1f p50=%.1f p99=%.1f worst=%.1f\n",
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.requests / (summary.duration / 1e6),
    latency:percentile(50), latency:percentile(99), latency.max))
end
