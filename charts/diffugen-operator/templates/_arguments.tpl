{{- /* The default store: the one that is named, else the bundled MinIO; as settings of the operator. */ -}}
{{- define "diffugen.store" -}}
{{- if .Values.store.endpoint -}}
storeEndpoint: {{ .Values.store.endpoint | quote }}
storeBucket: {{ required "store.bucket: name the bucket of store.endpoint" .Values.store.bucket | quote }}
storePrefix: {{ .Values.store.prefix | quote }}
storeRegion: {{ .Values.store.region | quote }}
storeAddressingStyle: {{ .Values.store.addressingStyle | quote }}
storeSecret: {{ .Values.store.secretName | quote }}
{{- else if .Values.minio.enabled -}}
storeEndpoint: {{ printf "http://%s.%s:9000" (include "diffugen.minio" .) .Release.Namespace | quote }}
storeBucket: {{ .Values.minio.bucket | quote }}
storeSecret: {{ include "diffugen.minio" . | quote }}
{{- else if or .Values.store.bucket .Values.store.prefix .Values.store.secretName -}}
{{- fail "store.endpoint: name the endpoint of the default store, or leave store.bucket, store.prefix and store.secretName empty" -}}
{{- end -}}
{{- end -}}

{{- /* The operator's flags. */ -}}
{{- define "diffugen.arguments" -}}
{{- $namespaces := include "diffugen.namespaces" . | fromJsonArray -}}
{{- if $namespaces }}
- --namespaces={{ join "," $namespaces }}
{{- else }}
- --all-namespaces
{{- end }}
- --lease-namespace={{ .Release.Namespace }}
- --lease-name={{ include "diffugen.fullname" . }}
- --http-port=8080
- --generator-image={{ include "diffugen.image" (list . .Values.generator.image) }}
- --light-image={{ include "diffugen.image" (list . .Values.generator.lightImage) }}
{{- with .Values.caBundle.configMap }}
- --ca-config-map={{ . }}
{{- end }}
{{- range $name, $value := merge (dict) (include "diffugen.store" . | fromYaml) .Values.settings }}
{{- $text := toString $value }}
{{- /* Numbers of a values file are floats here; 1e+06 is no whole number to the operator. */ -}}
{{- if and (kindIs "float64" $value) (eq (float64 (int64 $value)) $value) }}
{{- $text = int64 $value | toString }}
{{- end }}
{{- if not (or (kindIs "invalid" $value) (eq $text "")) }}
- {{ printf "--%s=%s" (kebabcase $name) $text | quote }}
{{- end }}
{{- end }}
{{- end -}}
