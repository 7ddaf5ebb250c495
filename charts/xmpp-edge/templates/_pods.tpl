{{/* What all pods that run the operator's image have: who they are, and the restricted Pod Security. */}}
{{- define "xmpp-edge.pod" -}}
serviceAccountName: {{ include "xmpp-edge.serviceAccount" . | quote }}
{{- with include "xmpp-edge.pullSecrets" . | fromJsonArray }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Whom those ask that need no name of the cluster. */}}
{{- define "xmpp-edge.podDns" -}}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Metadata of a hook's pod: (list root component). */}}
{{- define "xmpp-edge.hookLabels" -}}
{{- $root := index . 0 -}}
{{ include "xmpp-edge.labelsOf" (append . $root.Values.hooks.podLabels) }}
{{- end -}}

{{/* What all their containers have. */}}
{{- define "xmpp-edge.container" -}}
image: {{ include "xmpp-edge.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: RUST_LOG
    value: {{ .Values.log.level | quote }}
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end -}}

{{/* Arguments: which namespaces. */}}
{{- define "xmpp-edge.scope" -}}
{{- if .Values.clusterWide -}}
{{- if .Values.watchNamespaces }}{{ fail "watchNamespaces must be empty where clusterWide is true: it watches all" }}{{ end -}}
- --cluster-wide
{{- else -}}
{{- range $index, $namespace := include "xmpp-edge.namespaces" . | fromJsonArray -}}
{{- if $index }}{{ "\n" }}{{ end -}}
- --watch-namespace={{ $namespace }}
{{- end -}}
{{- end -}}
{{- end -}}
