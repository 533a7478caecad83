-- GET of manifests by tag, one tag after the other. Arguments: repository, number of tags (t0000, t0001, …).

local requests, at = {}, 0

function init(args)
  local repository, count = args[1], tonumber(args[2])
  for number = 0, count - 1 do
    requests[number + 1] = wrk.format("GET", string.format("/v2/%s/manifests/t%04d", repository, number))
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  require("figures").print(summary, latency)
end
