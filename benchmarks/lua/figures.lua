-- What wrk counted, in one line that a program can read: exact numbers instead of wrk's rounded ones.
-- `more` are counts of the script's own, each the sum over all threads.

local figures = {}

local function number(value)
  -- No answer at all gives "not a number", which JSON does not have.
  if value ~= value then return "0" end
  return string.format("%.17g", value)
end

function figures.print(summary, latency, more)
  local errors = summary.errors
  local fields = {
    requests = summary.requests, bytes = summary.bytes, microseconds = summary.duration,
    connect = errors.connect, read = errors.read, write = errors.write, timeout = errors.timeout,
    status = errors.status, p50 = latency:percentile(50), p99 = latency:percentile(99),
  }
  for name, value in pairs(more or {}) do fields[name] = value end
  local parts = {}
  for name, value in pairs(fields) do
    parts[#parts + 1] = string.format('"%s": %s', name, number(value))
  end
  io.write("figures {", table.concat(parts, ", "), "}\n")
end

return figures
