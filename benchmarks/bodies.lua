-- sends the lines of the file that BODIES names, one after the other
wrk.method = "POST"; wrk.headers["Content-Type"] = "application/json"
local requests = {}
local n = 0
function init(args)
  for line in io.lines(os.getenv("BODIES")) do requests[#requests + 1] = wrk.format(nil, nil, nil, line) end
end
function request() n = n + 1; return requests[n % #requests + 1] end
