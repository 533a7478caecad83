-- GET of one URL. Arguments: none. The request never changes, so wrk builds it once.

function done(summary, latency)
  require("figures").print(summary, latency)
end
