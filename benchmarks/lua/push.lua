-- Push of small blobs as docker does it: POST, PATCH in chunks and without a length, PUT with the digest.
--
-- One connection per thread, so that each answer is that to the thread's last request. Every blob is new: its first
-- bytes come from a file with a line "BYTES DIGEST" for each, one file per thread, 0, 1, …; the rest is filled up.
-- Arguments: repository, size of a blob, directory with the files.

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  threads[#threads + 1] = thread
end

-- globals: `done` asks for them
pushes, wrong, exhausted, first_wrong = 0, 0, 0, ""

local start, size, blobs, blob, digest, location, step

local function next_blob()
  local line = blobs()
  if line == nil then
    exhausted = 1
    wrk.thread:stop()
    return
  end
  local head
  head, digest = line:match("^(%S+) (%S+)$")
  blob = head .. string.rep(".", size - #head)
end

function init(args)
  start, size = "/v2/" .. args[1] .. "/blobs/uploads/", tonumber(args[2])
  blobs = io.lines(args[3] .. "/" .. number)
  next_blob()
  step = "POST"
end

function request()
  if step == "POST" then
    return wrk.format("POST", start, { ["Content-Length"] = "0" })
  elseif step == "PATCH" then
    local head = string.format("PATCH %s HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n"
      .. "Content-Type: application/octet-stream\r\n\r\n%x\r\n", location, wrk.headers["Host"], size)
    return head .. blob .. "\r\n0\r\n\r\n"
  end
  local glue = location:find("?", 1, true) and "&" or "?"
  return wrk.format("PUT", location .. glue .. "digest=" .. digest, { ["Content-Length"] = "0" })
end

local expected = { POST = 202, PATCH = 202, PUT = 201 }
local following = { POST = "PATCH", PATCH = "PUT", PUT = "POST" }

function response(status, headers)
  if status ~= expected[step] then
    wrong = wrong + 1
    if first_wrong == "" then first_wrong = step .. " was answered with " .. status end
    step = "POST"
    return
  end
  location = nil
  for name, value in pairs(headers) do
    if name:lower() == "location" then location = value:gsub("^%a+://[^/]+", "") end
  end
  if step == "PUT" then
    pushes = pushes + 1
    next_blob()
  end
  step = following[step]
end

function done(summary, latency)
  local more = { pushes = 0, wrong = 0, exhausted = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(more) do more[name] = more[name] + thread:get(name) end
    local said = thread:get("first_wrong")
    if said ~= "" then io.write("wrong ", said, "\n") end
  end
  require("figures").print(summary, latency, more)
end
