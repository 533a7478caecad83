-- POST of one form to one URL. Arguments: the form. The request never changes, so wrk builds it once.

function init(args)
  wrk.method = "POST"
  wrk.body = args[1]
  wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
end

function done(summary, latency)
  require("figures").print(summary, latency)
end
