{{/* What all pods that run the operator's image have: who they are, and the restricted Pod Security. */}}
{{- define "xmpp-edge.pod" -}}
serviceAccountName: {{ include "xmpp-edge.serviceAccount" . }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
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
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* What all their containers have. */}}
{{- define "xmpp-edge.container" -}}
image: {{ include "xmpp-edge.image" (list . .Values.image) }}
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
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
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
