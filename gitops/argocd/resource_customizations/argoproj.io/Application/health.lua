local hs = {status = "Progressing", message = "Waiting for Argo CD to judge the application"}

local judged = (obj.status or {}).health or {}
if judged.status ~= nil and judged.status ~= "" then
  hs.status = judged.status
  hs.message = judged.message or ""
end
return hs
