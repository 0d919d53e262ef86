{{/* Labels by which services and policies find the pods. */}}
{{- define "clipper.selector" -}}
app.kubernetes.io/name: clipper
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "clipper.labels" -}}
{{ include "clipper.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "clipper.redis.selector" -}}
app.kubernetes.io/name: clipper-redis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "clipper.redis.labels" -}}
{{ include "clipper.redis.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "clipper.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* clipper.yaml, and the files beside it. */}}
{{- define "clipper.files" -}}
{{- if .Values.config -}}
{{ merge (dict "clipper.yaml" .Values.config) .Values.files | toYaml }}
{{- else -}}
{{- if .Values.files }}{{ fail "files: they lie beside clipper.yaml, which is missing: add --set-file config=clipper.yaml" }}{{ end -}}
{{ (.Files.Glob "example/*").AsConfig }}
{{- end -}}
{{- end }}

{{/* Asks for applications that clipper.yaml makes: none of them is there, and so ready, before it was applied. */}}
{{- define "clipper.readiness" -}}
{{- $config := (include "clipper.files" . | fromYaml) | dig "clipper.yaml" "" | fromYaml -}}
{{- if hasKey $config "Error" }}{{ fail (printf "config: expected the text of clipper.yaml: %s. Give the file by --set-file config=clipper.yaml" $config.Error) }}{{ end -}}
{{- $applications := $config.applications | default dict -}}
{{- range .Values.readyApplications -}}
{{- if not (hasKey $applications .) }}{{ fail (printf "readyApplications: clipper.yaml has no application %s, so no pod would get queries" .) }}{{ end -}}
{{- end -}}
/health/ready
{{- range $number, $name := .Values.readyApplications | default (keys $applications | sortAlpha) -}}
{{ if $number }}&{{ else }}?{{ end }}application={{ $name | urlquery }}
{{- end -}}
{{- end }}
