"""The Terraform twin of the stacks: its variables, what its modules come to without a cloud, and whether that equals Pulumi's.

text_of(variables_of(stack))        # what `terraform -var-file` reads
compare(stack)                      # property by property, in Azure's own terms
"""
