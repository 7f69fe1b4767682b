"""ACM files for tests, written here: a policy of 2006, one of 2005 in two files, and builders."""

NEW = """\
<?xml version="1.0" encoding="UTF-8"?>
<!-- a comment -->
<SecurityPolicyDefinition xmlns="http://www.ibm.com"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.ibm.com ../../security_policy.xsd">
  <PolicyHeader>
    <PolicyName>site.tenants</PolicyName>
    <Date>2008-01-02</Date>
    <Version>1.3</Version>
    <FromPolicy><PolicyName>site.tenants</PolicyName><Version>1.2</Version></FromPolicy>
  </PolicyHeader>
  <SimpleTypeEnforcement>
    <SimpleTypeEnforcementTypes>
      <Type>sys</Type><Type>zinc</Type><Type>acid</Type><Type/>
    </SimpleTypeEnforcementTypes>
  </SimpleTypeEnforcement>
  <ChineseWall priority="PrimaryPolicyComponent">
    <ChineseWallTypes><Type>w_sys</Type><Type>w_zinc</Type><Type>w_acid</Type></ChineseWallTypes>
    <ConflictSets>
      <Conflict name="rivals"><Type>w_zinc</Type><Type>w_acid</Type></Conflict>
    </ConflictSets>
  </ChineseWall>
  <SecurityLabelTemplate>
    <SubjectLabels bootstrap="Manager">
      <VirtualMachineLabel>
        <Name from="zinc_old">zinc</Name>
        <SimpleTypeEnforcementTypes><Type>zinc</Type></SimpleTypeEnforcementTypes>
        <ChineseWallTypes><Type>w_zinc</Type></ChineseWallTypes>
      </VirtualMachineLabel>
      <VirtualMachineLabel>
        <Name>Manager</Name>
        <SimpleTypeEnforcementTypes><Type>sys</Type><Type>zinc</Type><Type>acid</Type></SimpleTypeEnforcementTypes>
        <ChineseWallTypes><Type>w_sys</Type></ChineseWallTypes>
      </VirtualMachineLabel>
      <VirtualMachineLabel>
        <Name>acid</Name>
        <SimpleTypeEnforcementTypes><Type>acid</Type></SimpleTypeEnforcementTypes>
        <ChineseWallTypes><Type>w_acid</Type></ChineseWallTypes>
      </VirtualMachineLabel>
    </SubjectLabels>
    <ObjectLabels>
      <ResourceLabel>
        <Name>disk(zinc)</Name>
        <SimpleTypeEnforcementTypes><Type>zinc</Type></SimpleTypeEnforcementTypes>
      </ResourceLabel>
      <ResourceLabel>
        <Name>disk(acid)</Name>
        <SimpleTypeEnforcementTypes><Type>acid</Type></SimpleTypeEnforcementTypes>
      </ResourceLabel>
    </ObjectLabels>
  </SecurityLabelTemplate>
</SecurityPolicyDefinition>
"""
OLD = """\
<SecurityPolicyDefinition xmlns="http://www.ibm.com">
  <PolicyHeader><Name>pair-security_policy</Name><Date>2005-08-10</Date></PolicyHeader>
  <SimpleTypeEnforcement>
    <SimpleTypeEnforcementTypes><Type>t</Type><Type>u</Type></SimpleTypeEnforcementTypes>
  </SimpleTypeEnforcement>
  <ChineseWall>
    <ChineseWallTypes><Type>a</Type><Type>b</Type></ChineseWallTypes>
    <ConflictSets><Conflict><Type>a</Type><Type>b</Type></Conflict></ConflictSets>
  </ChineseWall>
</SecurityPolicyDefinition>
"""
OLD_LABELS = """\
<SecurityLabelTemplate xmlns="http://www.ibm.com">
  <LabelHeader>
    <Name>pair-security_label_template</Name>
    <Date>2005-08-10</Date>
    <PolicyName><Url>pair-security_policy.xml</Url><Reference>00</Reference></PolicyName>
  </LabelHeader>
  <SubjectLabels bootstrap="m">
    <VirtualMachineLabel>
      <Name>x</Name>
      <SimpleTypeEnforcementTypes><Type>t</Type></SimpleTypeEnforcementTypes>
      <ChineseWallTypes><Type>a</Type></ChineseWallTypes>
    </VirtualMachineLabel>
    <VirtualMachineLabel>
      <Name>m</Name>
      <SimpleTypeEnforcementTypes><Type>t</Type><Type>u</Type></SimpleTypeEnforcementTypes>
      <ChineseWallTypes><Type/></ChineseWallTypes>
    </VirtualMachineLabel>
  </SubjectLabels>
  <ObjectLabels>
    <ResourceLabel>
      <Name>hard disk (hda)</Name>
      <SimpleTypeEnforcementTypes><Type>u</Type></SimpleTypeEnforcementTypes>
    </ResourceLabel>
  </ObjectLabels>
</SecurityLabelTemplate>
"""
MAP = """\
POLICYREFERENCENAME    site.tenants
MAGIC                  0001debc
POLICFILE              /etc/xen/acm-security/policies/site/tenants-security_policy.xml
BINARYFILE             /etc/xen/acm-security/policies/site/tenants.bin
MAX-CHWALL-TYPES       00000003
MAX-CHWALL-SSIDS       00000004
MAX-CHWALL-LABELS      00000004
MAX-STE-TYPES          00000003
MAX-STE-SSIDS          00000006
MAX-STE-LABELS         00000006

PRIMARY                CHWALL
SECONDARY              STE

LABEL->SSID ANY CHWALL __NULL_LABEL__       0
LABEL->SSID VM  CHWALL Manager              1
LABEL->SSID VM  CHWALL acid                 2
LABEL->SSID VM  CHWALL zinc                 3

LABEL->SSID ANY STE    __NULL_LABEL__       00000000
LABEL->SSID VM  STE    Manager              1
LABEL->SSID VM  STE    acid                 2
LABEL->SSID VM  STE    zinc                 3
LABEL->SSID RES STE    disk(acid)           4
LABEL->SSID RES STE    disk(zinc)           5

SSID->TYPE CHWALL      00000000
SSID->TYPE CHWALL      00000001 w_sys

TYPE STE               sys                  1
"""
"""NEW as the Python compiler numbered it."""


def types(*names):
    return "".join(f"<Type>{name}</Type>" for name in names) or "<Type/>"


def policy_xml(*, ste, walls, conflicts, bootstrap, labels, resources=(), name="p", version="1.0"):
    """A policy of 2006; labels and resources are (name, STE types, Chinese Wall types)."""
    sets = "".join(
        f'<Conflict name="{it}">{types(*held)}</Conflict>' for it, held in conflicts.items()
    )
    vms = "".join(
        f"<VirtualMachineLabel><Name>{it}</Name>"
        f"<SimpleTypeEnforcementTypes>{types(*held)}</SimpleTypeEnforcementTypes>"
        f"<ChineseWallTypes>{types(*walled)}</ChineseWallTypes></VirtualMachineLabel>"
        for it, held, walled in labels
    )
    things = "".join(
        f"<ResourceLabel><Name>{it}</Name>"
        f"<SimpleTypeEnforcementTypes>{types(*held)}</SimpleTypeEnforcementTypes></ResourceLabel>"
        for it, held in resources
    )
    return (
        '<SecurityPolicyDefinition xmlns="http://www.ibm.com"><PolicyHeader>'
        f"<PolicyName>{name}</PolicyName><Version>{version}</Version></PolicyHeader>"
        "<SimpleTypeEnforcement><SimpleTypeEnforcementTypes>"
        f"{types(*ste)}</SimpleTypeEnforcementTypes></SimpleTypeEnforcement>"
        f"<ChineseWall><ChineseWallTypes>{types(*walls)}</ChineseWallTypes>"
        f"<ConflictSets>{sets}</ConflictSets></ChineseWall>"
        f'<SecurityLabelTemplate><SubjectLabels bootstrap="{bootstrap}">{vms}</SubjectLabels>'
        f"<ObjectLabels>{things}</ObjectLabels></SecurityLabelTemplate></SecurityPolicyDefinition>"
    )
